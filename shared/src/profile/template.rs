//! Texts of profiles as templates (Jinja's language), within limits: a caller waits while they are rendered.
//!
//! Time and output are bounded while rendering. Memory is bounded before: what a template may bind to a name or hand
//! on is a part of what it was given, never something put together, so nothing can double with every line.

use std::fmt::Display;
use std::io::Write;
use std::sync::LazyLock;

use minijinja::machinery::ast::{BinOpKind, CallArg, Expr, Stmt};
use minijinja::machinery::{WhitespaceConfig, parse};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value, filters, tests};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::Instant;

/// The longest text that is a template, in bytes.
pub const MAX_SOURCE: usize = 8 * 1024;
/// The longest text that a template makes, in bytes.
pub const MAX_OUTPUT: usize = 16 * 1024;
/// Steps that a template takes at most.
const FUEL: u64 = 5_000;
/// Values that one expression puts together at most, by `~`, `+` and `[,]`.
const MAX_PUT_TOGETHER: usize = 20;
/// What a value may be multiplied by: a text is repeated so often.
const MAX_FACTOR: f64 = 100.0;

/// What a template can use beside its own names.
pub const VARIABLES: [&str; 5] = ["request", "custom_parameters", "contact", "now", "history"];

/// Filters that a template can use.
pub const FILTERS: [&str; 19] = [
    "abs",
    "capitalize",
    "date",
    "default",
    "first",
    "float",
    "int",
    "join",
    "last",
    "length",
    "lower",
    "replace",
    "round",
    "string",
    "title",
    "tojson",
    "trim",
    "truncate",
    "upper",
];
/// The one filter that URLs need more.
const URLENCODE: &str = "urlencode";

/// Why a text cannot be rendered.
#[derive(Clone, PartialEq, Eq)]
pub struct Fault {
    /// Of the text, from 1.
    pub line: Option<usize>,
    /// May quote what the template was given.
    pub reason: String,
}

/// Without the reason, which may hold what a caller said.
impl std::fmt::Debug for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fault {{ line: {:?}, reason: [redacted] }}", self.line)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let what = match error.kind() {
            ErrorKind::OutOfFuel => format!("it takes more than {FUEL} steps"),
            ErrorKind::WriteFailure => error.detail().unwrap_or("it cannot be written").to_owned(),
            kind => match error.detail() {
                Some(detail) => format!("{kind}: {detail}"),
                None => kind.to_string(),
            },
        };
        Self { line: error.line(), reason: what }
    }
}

/// Whether a text is more than itself.
pub fn is_template(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|begin| text.contains(begin))
}

/// Whether a template needs this variable.
pub fn mentions(text: &str, variable: &str) -> bool {
    is_template(text) && text.contains(variable)
}

/// Checks what can be known before rendering: grammar, names, and that nothing can grow.
pub fn check(text: &str) -> Result<(), Fault> {
    if text.len() > MAX_SOURCE {
        return Err(Fault { line: None, reason: format!("it is longer than {MAX_SOURCE} bytes") });
    }
    if !is_template(text) {
        return Ok(());
    }
    let parsed = parse(text, "text", SyntaxConfig, WHITESPACE)?;
    Checker::default().statement(&parsed)
}

/// Renders a text with what its author may use, until then.
pub fn render(text: &str, variables: &Value, until: Instant) -> Result<String, Fault> {
    check(text)?;
    if !is_template(text) {
        return Ok(text.to_owned());
    }
    let mut output = Capped { bytes: Vec::new(), until: Some(until), full: None };
    let template = ENVIRONMENT.template_from_str(text)?;
    let done = template.render_captured_to(variables, &mut output);
    if let Some(reason) = output.full {
        return Err(Fault { line: done.err().and_then(|error| error.line()), reason: reason.to_owned() });
    }
    done?;
    String::from_utf8(output.bytes).map_err(|_| Fault { line: None, reason: "it makes no text".to_owned() })
}

const WHITESPACE: WhitespaceConfig =
    WhitespaceConfig { keep_trailing_newline: true, lstrip_blocks: false, trim_blocks: false };

/// Takes so much and no more, and until then.
struct Capped {
    bytes: Vec<u8>,
    until: Option<Instant>,
    full: Option<&'static str>,
}

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_OUTPUT {
            self.full = Some("it makes more than 16384 bytes");
        } else if self.until.is_some_and(|until| Instant::now() > until) {
            self.full = Some("it takes too long");
        }
        if self.full.is_some() {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What templates have at hand. Made when the first is rendered: most answers are plain texts.
static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(environment);

fn environment() -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_keep_trailing_newline(true);
    environment.set_fuel(Some(FUEL));
    environment.set_undefined_behavior(UndefinedBehavior::Chainable);
    environment.set_formatter(|output, _, value| Ok(output.write_str(&spoken(value))?));
    environment.add_filter("abs", filters::abs);
    environment.add_filter("capitalize", filters::capitalize);
    environment.add_filter("date", date);
    environment.add_filter("default", default);
    environment.add_filter("first", filters::first);
    environment.add_filter("float", filters::float);
    environment.add_filter("int", filters::int);
    environment.add_filter("join", join);
    environment.add_filter("last", filters::last);
    environment.add_filter("length", filters::length);
    environment.add_filter("lower", filters::lower);
    environment.add_filter("replace", replace);
    environment.add_filter("round", filters::round);
    environment.add_filter("string", filters::string);
    environment.add_filter("title", filters::title);
    environment.add_filter("tojson", tojson);
    environment.add_filter("trim", filters::trim);
    environment.add_filter("truncate", truncate);
    environment.add_filter("upper", filters::upper);
    environment
        .add_filter(URLENCODE, |value: &Value| utf8_percent_encode(&spoken(value), NON_ALPHANUMERIC).to_string());
    environment.add_test("defined", tests::is_defined);
    environment.add_test("undefined", tests::is_undefined);
    environment.add_test("none", tests::is_none);
    environment.add_test("number", tests::is_number);
    environment.add_test("string", tests::is_string);
    environment.add_test("mapping", tests::is_mapping);
    environment.add_test("sequence", tests::is_sequence);
    environment
}

/// Tests, as [`environment`] has them.
const TESTS: [&str; 7] = ["defined", "undefined", "none", "number", "string", "mapping", "sequence"];

/// A value as it is printed.
fn spoken(value: &Value) -> String {
    match value.kind() {
        // What is not there is not spoken.
        ValueKind::None => String::new(),
        ValueKind::Bool => value.is_true().to_string(),
        _ => value.to_string(),
    }
}

/// The value, or another where it is missing, null or an empty text.
fn default(value: Value, other: Value) -> Value {
    let says_nothing = value.is_undefined() || value.is_none() || value.as_str().is_some_and(str::is_empty);
    if says_nothing { other } else { value }
}

fn too_long() -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("more than {MAX_OUTPUT} bytes"))
}

fn join(values: &Value, between: Option<&str>) -> Result<String, Error> {
    let mut out = String::new();
    for (nth, value) in values.try_iter()?.enumerate() {
        out.push_str(between.filter(|_| nth > 0).unwrap_or_default());
        out.push_str(&spoken(&value));
        if out.len() > MAX_OUTPUT {
            return Err(too_long());
        }
    }
    Ok(out)
}

fn replace(value: &Value, from: &str, to: &str) -> Result<String, Error> {
    let value = spoken(value);
    if from.is_empty() {
        // It is between all letters.
        return Err(Error::new(ErrorKind::InvalidOperation, "an empty text cannot be replaced"));
    }
    if value.len() + value.matches(from).count() * to.len() > MAX_OUTPUT {
        return Err(too_long());
    }
    Ok(value.replace(from, to))
}

/// The first so many characters, with a mark if there were more.
fn truncate(value: &Value, characters: usize) -> String {
    let value = spoken(value);
    match value.char_indices().nth(characters) {
        None => value,
        Some((end, _)) => format!("{}\u{2026}", value[..end].trim_end()),
    }
}

fn tojson(value: &Value) -> Result<String, Error> {
    let mut out = Capped { bytes: Vec::new(), until: None, full: None };
    serde_json::to_writer(&mut out, value).map_err(|_| too_long())?;
    String::from_utf8(out.bytes).map_err(|_| too_long())
}

/// An instant as `strftime` writes it, by the clock that it comes with: `date("%d %B")`.
fn date(value: &Value, format: &str) -> Result<String, Error> {
    let refused = |why| Error::new(ErrorKind::InvalidOperation, why);
    if value.is_undefined() || value.is_none() {
        return Ok(String::new());
    }
    let text = spoken(value);
    let local: jiff::civil::DateTime =
        text.trim_end_matches('Z').parse().map_err(|_| refused("date takes an instant"))?;
    let written = jiff::fmt::strtime::format(format, local);
    written.map_err(|_| refused("date knows %Y %m %d %H %M %S %A %a %B %b %p %I %e %j and their like"))
}

/// Walks over a template once.
#[derive(Default)]
struct Checker<'a> {
    bound: Vec<&'a str>,
    /// In this expression.
    put_together: usize,
    /// In this expression.
    products: usize,
}

/// What a value is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// It is printed or compared, and gone.
    Once,
    /// It gets a name, and so can be used again and again.
    Bound,
}

fn fault(line: u16, reason: impl Display) -> Fault {
    Fault { line: Some(line.into()), reason: reason.to_string() }
}

impl<'a> Checker<'a> {
    fn statements(&mut self, statements: &[Stmt<'a>]) -> Result<(), Fault> {
        statements.iter().try_for_each(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &Stmt<'a>) -> Result<(), Fault> {
        match statement {
            Stmt::Template(template) => self.statements(&template.children),
            Stmt::EmitRaw(_) => Ok(()),
            Stmt::EmitExpr(emit) => self.expression(&emit.expr, Use::Once),
            Stmt::IfCond(condition) => {
                self.expression(&condition.expr, Use::Once)?;
                self.statements(&condition.true_body)?;
                self.statements(&condition.false_body)
            }
            Stmt::ForLoop(each) => {
                if each.recursive {
                    return Err(fault(each.span().start_line, "loops cannot be recursive"));
                }
                self.expression(&each.iter, Use::Bound)?;
                let known = self.bound.len();
                self.bound.push("loop");
                self.bind(&each.target)?;
                if let Some(only) = &each.filter_expr {
                    self.expression(only, Use::Once)?;
                }
                self.statements(&each.body)?;
                self.bound.truncate(known);
                self.statements(&each.else_body)
            }
            Stmt::Set(set) => {
                self.expression(&set.expr, Use::Bound)?;
                self.bind(&set.target)
            }
            Stmt::WithBlock(with) => {
                let known = self.bound.len();
                for (target, value) in &with.assignments {
                    self.expression(value, Use::Bound)?;
                    self.bind(target)?;
                }
                self.statements(&with.body)?;
                self.bound.truncate(known);
                Ok(())
            }
            Stmt::SetBlock(set) => Err(fault(set.span().start_line, "set takes a value here, and no block")),
            Stmt::FilterBlock(filter) => Err(fault(filter.span().start_line, "filters are for values, not for blocks")),
            Stmt::AutoEscape(escape) => Err(fault(escape.span().start_line, "nothing is escaped here")),
            Stmt::Do(call) => Err(fault(call.span().start_line, "there is nothing to call")),
        }
    }

    fn bind(&mut self, target: &Expr<'a>) -> Result<(), Fault> {
        match target {
            Expr::Var(name) => self.bound.push(name.id),
            Expr::List(names) => return names.items.iter().try_for_each(|name| self.bind(name)),
            other => return Err(fault(other.span().start_line, "only a plain name can be set")),
        }
        Ok(())
    }

    fn expression(&mut self, expression: &Expr<'a>, usage: Use) -> Result<(), Fault> {
        (self.put_together, self.products) = (0, 0);
        self.parts(expression, usage)?;
        let line = expression.span().start_line;
        if self.put_together > MAX_PUT_TOGETHER {
            let reason = format!("more than {MAX_PUT_TOGETHER} values are put together: print them one after another");
            return Err(fault(line, reason));
        }
        if self.products > 1 {
            return Err(fault(line, "more than one *"));
        }
        Ok(())
    }

    fn parts(&mut self, expression: &Expr<'a>, usage: Use) -> Result<(), Fault> {
        let line = expression.span().start_line;
        let grows = |what: &str| match usage {
            Use::Once => Ok(()),
            Use::Bound => Err(fault(line, format!("{what} cannot get a name: write it where it is printed"))),
        };
        match expression {
            Expr::Const(_) => Ok(()),
            Expr::Var(name) if self.bound.contains(&name.id) || VARIABLES.contains(&name.id) => Ok(()),
            Expr::Var(name) => {
                let known = VARIABLES.join(", ");
                Err(fault(line, format!("there is no variable {}: there are {known}", name.id)))
            }
            Expr::GetAttr(part) => self.parts(&part.expr, usage),
            Expr::GetItem(part) => {
                self.parts(&part.expr, usage)?;
                self.parts(&part.subscript_expr, Use::Once)
            }
            Expr::Slice(part) => {
                self.parts(&part.expr, usage)?;
                [&part.start, &part.stop, &part.step].into_iter().flatten().try_for_each(|at| self.parts(at, Use::Once))
            }
            Expr::UnaryOp(of) => self.parts(&of.expr, usage),
            Expr::Compare(compare) => {
                self.parts(&compare.expr, Use::Once)?;
                compare.ops.iter().try_for_each(|with| self.parts(&with.expr, Use::Once))
            }
            Expr::IfExpr(either) => {
                self.parts(&either.test_expr, Use::Once)?;
                self.parts(&either.true_expr, usage)?;
                either.false_expr.iter().try_for_each(|value| self.parts(value, usage))
            }
            Expr::BinOp(of) => {
                match of.op {
                    BinOpKind::Concat | BinOpKind::Add => {
                        grows("what is put together by ~ or +")?;
                        self.put_together += 1;
                    }
                    BinOpKind::Pow => return Err(fault(line, "there is no **")),
                    BinOpKind::Mul => {
                        grows("a product")?;
                        self.products += 1;
                        if !is_factor(&of.left) && !is_factor(&of.right) {
                            return Err(fault(line, "* takes a number of at most 100 on one side"));
                        }
                    }
                    _ => {}
                }
                let usage = if matches!(of.op, BinOpKind::ScAnd | BinOpKind::ScOr) { usage } else { Use::Once };
                self.parts(&of.left, usage)?;
                self.parts(&of.right, usage)
            }
            Expr::Filter(filter) => {
                if !FILTERS.contains(&filter.name) && filter.name != URLENCODE {
                    let known = FILTERS.join(", ");
                    return Err(fault(
                        line,
                        format!("there is no filter {}: there are {known}, urlencode", filter.name),
                    ));
                }
                if ["join", "replace", "tojson", URLENCODE].contains(&filter.name) {
                    grows(filter.name)?;
                }
                filter.expr.iter().try_for_each(|value| self.parts(value, usage))?;
                self.arguments(&filter.args, usage)
            }
            Expr::Test(test) => {
                if !TESTS.contains(&test.name) {
                    return Err(fault(line, format!("there is no test {}: there are {}", test.name, TESTS.join(", "))));
                }
                self.parts(&test.expr, Use::Once)?;
                self.arguments(&test.args, Use::Once)
            }
            Expr::Call(_) => Err(fault(line, "there are no functions: there are filters, such as {{ name|title }}")),
            Expr::List(list) => {
                grows("a list")?;
                self.put_together += list.items.len();
                list.items.iter().try_for_each(|item| self.parts(item, usage))
            }
            Expr::Map(map) => {
                grows("a map")?;
                self.put_together += map.values.len();
                map.keys.iter().chain(&map.values).try_for_each(|part| self.parts(part, usage))
            }
        }
    }

    fn arguments(&mut self, arguments: &[CallArg<'a>], usage: Use) -> Result<(), Fault> {
        arguments.iter().try_for_each(|argument| match argument {
            CallArg::Pos(value) | CallArg::Kwarg(_, value) => self.parts(value, usage),
            CallArg::PosSplat(value) | CallArg::KwargSplat(value) => {
                Err(fault(value.span().start_line, "arguments are given one by one"))
            }
        })
    }
}

fn is_factor(expression: &Expr<'_>) -> bool {
    let Expr::Const(number) = expression else { return false };
    number.value.kind() == ValueKind::Number
        && f64::try_from(number.value.clone()).is_ok_and(|number| number.abs() <= MAX_FACTOR)
}

#[cfg(test)]
mod checks {
    use minijinja::context;
    use tokio::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    fn said() -> Value {
        context! {
            request => context! { bot_name => "Asha", end_time => Value::from(()), session_id => "s1" },
            custom_parameters => context! { name => "ravi KUMAR", empty => "", amount => 2.5, list => vec!["a", "b"] },
            contact => "+919876543210",
            now => context! { hour => 9, iso => "2026-03-15T09:05:00+05:30" },
            history => context! { calls => 2 },
        }
    }

    fn rendered(text: &str) -> String {
        render(text, &said(), soon()).unwrap_or_else(|fault| panic!("{text}: {}", fault.reason))
    }

    fn refused(text: &str) -> String {
        match render(text, &said(), soon()) {
            Ok(_) => panic!("{text} is rendered"),
            Err(Fault { line, reason }) => format!("{line:?} {reason}"),
        }
    }

    #[test]
    fn a_text_without_braces_is_itself() {
        for text in ["", "Namaste!\n", "100 % {sure} \u{202b}\u{645}\u{631}\u{62d}\u{628}\u{627}", "} }} %}"] {
            assert_eq!(rendered(text), text);
        }
    }

    #[test]
    fn what_a_greeting_needs_can_be_said() {
        for (text, said) in [
            ("Hello {{ custom_parameters.name|title }}!\n", "Hello Ravi Kumar!\n"),
            ("{% if now.hour < 12 %}Good morning{% else %}Good evening{% endif %}", "Good morning"),
            ("{% set who = custom_parameters.empty or request.bot_name %}{{ who }}", "Asha"),
            (
                "{{ custom_parameters.empty|default('friend') }}, {{ nothing.at.all }}"
                    .trim_end_matches(", {{ nothing.at.all }}"),
                "friend",
            ),
            ("[{{ request.end_time }}{{ request.no.such.member }}]", "[]"),
            (
                "{% for x in custom_parameters.list %}{{ loop.index }}{{ x }}{% if not loop.last %}, {% endif %}{% endfor %}",
                "1a, 2b",
            ),
            ("{{ custom_parameters.list|join(' and ') }}", "a and b"),
            ("{{ custom_parameters.amount * 100 }}", "250.0"),
            ("{{ (custom_parameters.amount * 100)|int }}", "250"),
            ("{{ now.iso|date('%d %B, %H:%M') }}", "15 March, 09:05"),
            ("{{ 'a' ~ request.session_id ~ 1 }}", "as11"),
            ("{{ request.bot_name|truncate(2) }}", "As\u{2026}"),
            ("{{ contact|urlencode }} {{ request.bot_name|tojson }}", "%2B919876543210 \"Asha\""),
            ("{# a note #}{{ request.bot_name|replace('A', 'U')|upper }}", "USHA"),
            ("{% with n = history.calls %}{{ n }}{% endwith %}", "2"),
            ("{% raw %}{{ as it is }}{% endraw %}", "{{ as it is }}"),
        ] {
            assert_eq!(rendered(text), said, "{text}");
        }
    }

    #[test]
    fn what_does_not_parse_says_where_and_why() {
        for (text, why) in [
            ("Hello\n{{ contact", "Some(2) syntax error"),
            ("{% if contact %}", "Some(1) syntax error"),
            ("\n\n{{ reqest.bot_name }}", "Some(3) there is no variable reqest: there are request,"),
            ("{{ contact|shout }}", "Some(1) there is no filter shout: there are abs,"),
            ("{% if contact is odd %}{% endif %}", "Some(1) there is no test odd"),
            ("{{ range(10) }}", "Some(1) there are no functions"),
            ("{{ contact.upper() }}", "Some(1) there are no functions"),
            ("{% include 'other' %}", "Some(1) syntax error"),
            ("{% macro m() %}{% endmacro %}", "Some(1) syntax error"),
            ("{% set x %}{{ contact }}{% endset %}", "Some(1) set takes a value"),
            ("{% filter upper %}x{% endfilter %}", "Some(1) filters are for values"),
            ("{% autoescape true %}x{% endautoescape %}", "Some(1) nothing is escaped"),
            ("{{ 2 ** 3 }}", "Some(1) there is no **"),
            ("{{ request.end_time|date }}", "Some(1) missing argument"),
            ("{{ contact|date('%Y') }}", "Some(1) invalid operation: date takes an instant"),
        ] {
            let said = refused(text);
            assert!(said.starts_with(why), "{text}: {said}");
        }
        assert!(refused(&"x".repeat(MAX_SOURCE + 1)).contains("longer than 8192 bytes"));
    }

    #[test]
    fn nothing_grows_and_nothing_goes_on_for_ever() {
        let long = "x".repeat(10_000);
        let given = context! { request => context! { long => long, many => vec![1; 10_000] } };
        for (text, why) in [
            ("{% for a in request.many %}{% for b in request.many %}{% endfor %}{% endfor %}", "more than 5000 steps"),
            ("{{ request.long }}{{ request.long }}", "more than 16384 bytes"),
            ("{% for a in request.many %}{{ request.long }}{% endfor %}", "more than 16384 bytes"),
            ("{{ request.long * 100 }}", "more than 16384 bytes"),
            ("{{ request.long * 101 }}", "at most 100"),
            ("{{ request.long * 100 * 100 }}", "more than one *"),
            ("{% set x = request.long %}{% set x = x ~ x %}", "cannot get a name"),
            ("{% set x = [request.long] %}", "cannot get a name"),
            ("{% set x = request.many|join(request.long) %}", "cannot get a name"),
            ("{% for x in [request.long, request.long] %}{% endfor %}", "cannot get a name"),
            ("{% with x = request.long + request.long %}{% endwith %}", "cannot get a name"),
            ("{{ request.many|join(request.long) }}", "more than 16384 bytes"),
            ("{{ request.long|replace('x', request.long) }}", "more than 16384 bytes"),
            ("{{ [request.long, request.long]|tojson }}", "more than 16384 bytes"),
            (&format!("{{{{ request.long{} }}}}", " ~ request.long".repeat(21)), "more than 20 values"),
            (&format!("{{{{ [{}] }}}}", "request.long,".repeat(21)), "more than 20 values"),
            (&format!("{{{{ {}x", "(".repeat(2000)), "syntax error"),
        ] {
            match render(text, &given, soon()) {
                Ok(_) => panic!("{text} is rendered"),
                Err(Fault { reason, .. }) => assert!(reason.contains(why), "{text}: {reason}"),
            }
        }
    }

    #[test]
    fn a_template_that_is_out_of_time_stops() {
        let late = Instant::now() - Duration::from_millis(1);
        let Err(fault) = render("{{ request.bot_name }}", &said(), late) else { panic!("it is rendered") };
        assert_eq!(fault.reason, "it takes too long");
        assert_eq!(format!("{fault:?}"), "Fault { line: None, reason: [redacted] }");
    }

    #[test]
    fn every_filter_that_is_named_is_there_and_the_other_way_round() {
        let environment = environment();
        for filter in FILTERS.iter().chain([&URLENCODE]) {
            let used = environment.empty_state().apply_filter(filter, &[]);
            let unknown = used.is_err_and(|error| error.kind() == ErrorKind::UnknownFilter);
            assert!(!unknown, "{filter}");
        }
        for test in TESTS {
            let used = environment.empty_state().perform_test(test, &[Value::from(1)]);
            assert!(used.is_ok(), "{test}");
        }
    }
}
