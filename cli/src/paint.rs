//! Colours, where there is somebody to see them.

/// Whether to colour: only on a terminal, and not where `NO_COLOR` is set.
#[derive(Clone, Copy, Debug)]
pub struct Paint(pub bool);

/// What stands out, and how.
#[derive(Clone, Copy, Debug)]
pub enum Colour {
    /// What matters less.
    Dim,
    /// What matters more.
    Bold,
    /// What is wrong.
    Red,
    /// What goes well.
    Green,
    /// What wants a look.
    Yellow,
    /// Who speaks.
    Cyan,
}

impl Paint {
    /// The text in that colour.
    pub fn on(self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Dim => 2,
            Colour::Bold => 1,
            Colour::Red => 31,
            Colour::Green => 32,
            Colour::Yellow => 33,
            Colour::Cyan => 36,
        };
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
