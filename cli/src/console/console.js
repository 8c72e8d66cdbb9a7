// What pages do beyond being read: times by the reader's clock, news, a player beside its transcript, bodies on demand.
"use strict";

const clock = (seconds) => {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (number) => String(number).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
};

// Times: the server says UTC, the reader's clock may be another.
const today = () => new Date().toDateString();
const FORMS = {
  full: { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" },
  day: { day: "numeric", month: "short", weekday: "short" },
  time: { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" },
};
function localise(within) {
  for (const time of within.querySelectorAll("time[data-shown]")) {
    const at = new Date(time.dateTime);
    const form = { ...FORMS[time.dataset.shown] };
    if (time.dataset.shown === "full" && at.getFullYear() !== new Date().getFullYear()) form.year = "numeric";
    const text = at.toLocaleString("en-GB", form);
    time.textContent = time.dataset.shown === "full" && at.toDateString() === today() ? `Today, ${text.split(", ").pop()}` : text;
  }
}

// News: the page is fetched again, and what changed is put in its place, piece by piece, so that whoever reads or
// types is not disturbed. Pieces are compared as the server sent them.
const sent = new WeakMap();
const remember = (within) => {
  for (const piece of within.querySelectorAll("[data-key]")) sent.set(piece, piece.outerHTML);
  for (const part of within.querySelectorAll("[data-live]")) sent.set(part, part.outerHTML);
};
const say = (text) => { document.getElementById("heard").textContent = text; };

function put(part, fresh) {
  const into = part.matches("ol") ? part : part.querySelector("tbody");
  const from = fresh.matches("ol") ? fresh : fresh.querySelector("tbody");
  if (!into || !from || !from.querySelector(":scope > [data-key]")) {
    if (part.contains(document.activeElement) && document.activeElement !== document.body) return 0;
    sent.set(fresh, fresh.outerHTML);
    remember(fresh);
    part.replaceWith(fresh);
    return 0;
  }
  const known = new Map([...into.children].map((piece) => [piece.dataset.key, piece]));
  let before = into.firstElementChild, news = 0;
  for (const piece of [...from.children]) {
    const old = known.get(piece.dataset.key);
    known.delete(piece.dataset.key);
    if (old && (sent.get(old) === piece.outerHTML || old.querySelector("details[open]"))) {
      if (old === before) before = before.nextElementSibling;
      else into.insertBefore(old, before);
      continue;
    }
    sent.set(piece, piece.outerHTML);
    const within = old?.contains(document.activeElement);
    const ticked = old?.querySelector("input:checked");
    if (old === before) before = before?.nextElementSibling ?? null;
    if (old) old.replaceWith(piece);
    else { into.insertBefore(piece, before); piece.classList.add("new"); news += 1; }
    if (ticked) { const tick = piece.querySelector("input[type=checkbox]"); if (tick) tick.checked = true; }
    if (within) piece.querySelector("a, button, input")?.focus({ preventScroll: true });
  }
  for (const gone of known.values()) if (!gone.contains(document.activeElement)) gone.remove();
  sent.set(part, fresh.outerHTML);
  return news;
}

async function refresh() {
  const response = await fetch(location.href, { headers: { accept: "text/html" } });
  if (!response.ok) return;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  let news = 0;
  for (const part of document.querySelectorAll("[data-live]")) {
    const fresh = page.querySelector(`[data-live="${part.dataset.live}"]`);
    if (fresh && fresh.outerHTML !== sent.get(part)) news += put(part, document.adoptNode(fresh));
  }
  const main = document.getElementById("main");
  localise(main);
  dress(main);
  if (news > 0 && document.querySelector("table.calls")) say(news === 1 ? "One new call" : `${news} new calls`);
  if (!page.querySelector("[data-live-page], .live")) following = false;
}

let following = false;
function follow() {
  const button = document.querySelector(".live");
  following = Boolean(button || document.querySelector("[data-live-page]"));
  if (!following) return;
  if (button) {
    button.hidden = false;
    button.addEventListener("click", () => {
      following = !following;
      button.setAttribute("aria-pressed", String(following));
    });
  }
  const every = Number(document.body.dataset.refresh) * 1000;
  const again = async () => {
    // A page that nobody looks at asks for nothing.
    if (following && !document.hidden) await refresh().catch(() => {});
    setTimeout(again, every);
  };
  setTimeout(again, every);
}

// Bodies, once they are asked for.
async function open(details) {
  if (!details.open || details.querySelector(".body")) return;
  const body = document.createElement("pre");
  body.className = "body";
  body.tabIndex = 0;
  body.setAttribute("aria-label", "The body");
  body.textContent = "…";
  details.append(body);
  const response = await fetch(details.dataset.body).catch(() => null);
  const text = response?.ok ? await response.text() : null;
  body.textContent = text ?? "The body cannot be had now.";
  let pretty = null;
  try { pretty = JSON.stringify(JSON.parse(text), null, 2); } catch { return; }
  const toggle = document.createElement("button");
  toggle.type = "button";
  toggle.className = "quiet-button";
  toggle.textContent = "Indent";
  toggle.setAttribute("aria-pressed", "false");
  toggle.addEventListener("click", () => {
    const indented = toggle.getAttribute("aria-pressed") === "false";
    toggle.setAttribute("aria-pressed", String(indented));
    body.textContent = indented ? pretty : text;
  });
  details.querySelector(".tools").append(toggle);
}

// What needs a script is shown where there is one. Pieces that come with news are dressed, too.
const dressed = new WeakSet();
const once = (element) => !dressed.has(element) && dressed.add(element);
function dress(within) {
  for (const details of within.querySelectorAll("details[data-body]")) {
    if (once(details)) details.addEventListener("toggle", () => open(details));
  }
  for (const button of within.querySelectorAll("[data-copy]")) {
    if (!once(button)) continue;
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.dataset.copy).then(() => say("Copied"), () => say("Not copied"));
    });
  }
  for (const button of within.querySelectorAll("button.all")) {
    if (!once(button)) continue;
    button.hidden = false;
    button.addEventListener("click", () => {
      for (const tick of button.form.querySelectorAll("input[type=checkbox]")) tick.checked = true;
    });
  }
  const deck = within.querySelector(".deck");
  if (deck && once(deck)) play(deck.closest(".player"), deck);
}

// The player: the sound is the audio element's, its controls are ours.
function play(card, deck) {
  const audio = card.querySelector("audio");
  const [button, wave, canvas] = [deck.querySelector(".play"), deck.querySelector(".wave"), deck.querySelector("canvas")];
  const [now, of] = [deck.querySelector(".now"), deck.querySelector(".of")];
  const turns = () => [...document.querySelectorAll(".turn[data-from]")];
  const length = () => (Number.isFinite(audio.duration) ? audio.duration : 0);
  let peaks = null;

  audio.controls = false;
  audio.hidden = true;
  deck.hidden = false;
  card.querySelector(".hint").hidden = false;
  document.body.classList.add("can-play");

  const seek = (seconds) => { audio.currentTime = Math.min(Math.max(0, seconds), Math.max(0, length() - 0.01)); show(); };
  const toggle = () => (audio.paused ? audio.play() : audio.pause());

  function show() {
    const at = audio.currentTime;
    now.textContent = clock(at);
    of.textContent = clock(length());
    wave.setAttribute("aria-valuemax", length().toFixed(1));
    wave.setAttribute("aria-valuenow", at.toFixed(1));
    wave.setAttribute("aria-valuetext", `${clock(at)} of ${clock(length())}`);
    mark(at);
    draw();
  }

  let spoken = null;
  function mark(at) {
    const all = turns();
    let current = null;
    for (const turn of all) if (Number(turn.dataset.from) <= at + 0.05) current = turn;
    if (audio.paused && at === 0) current = null;
    if (current === spoken) return;
    spoken?.classList.remove("spoken");
    spoken?.removeAttribute("aria-current");
    spoken = current;
    if (!spoken) return;
    spoken.classList.add("spoken");
    spoken.setAttribute("aria-current", "true");
    const box = spoken.getBoundingClientRect();
    if (!audio.paused && (box.bottom > innerHeight || box.top < 0)) {
      const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
      spoken.scrollIntoView({ block: "center", behavior: calm ? "auto" : "smooth" });
    }
  }

  // Each column has the colour of whoever speaks then.
  function draw() {
    const scale = devicePixelRatio || 1;
    const { width, height } = wave.getBoundingClientRect();
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    const pen = canvas.getContext("2d");
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const colours = { bot: colour("--bot"), person: colour("--person"), none: colour("--edge") };
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    const [step, bar] = [4, 2.5];
    const columns = Math.max(1, Math.floor(width / step));
    const whole = length();
    const spans = turns().map((turn, index, all) => {
      const from = Number(turn.dataset.from);
      const next = index + 1 < all.length ? Number(all[index + 1].dataset.from) : whole;
      return { from, to: Number(turn.dataset.to ?? next), who: turn.classList.contains("bot") ? "bot" : "person" };
    });
    for (let column = 0; column < columns; column += 1) {
      const at = ((column + 0.5) / columns) * whole;
      const who = spans.find((span) => span.from <= at && at < span.to)?.who ?? "none";
      const peak = peaks ? peaks[Math.min(peaks.length - 1, Math.floor((column / columns) * peaks.length))] : 0.12;
      const tall = Math.max(3, peak * (height - 6));
      pen.globalAlpha = whole > 0 && at <= audio.currentTime ? 1 : 0.38;
      pen.fillStyle = colours[who];
      pen.beginPath();
      pen.roundRect(column * step, (height - tall) / 2, bar, tall, 1.25);
      pen.fill();
    }
    if (whole > 0 && audio.currentTime > 0) {
      pen.globalAlpha = 1;
      pen.fillStyle = colour("--ink");
      pen.fillRect(Math.min(width - 1.5, (audio.currentTime / whole) * width), 0, 1.5, height);
    }
  }

  async function listen() {
    if (deck.dataset.draw !== "yes") return;
    const response = await fetch(audio.currentSrc || audio.src);
    const bytes = await response.arrayBuffer();
    // A low rate: only the outline is looked at.
    const sound = await new OfflineAudioContext(1, 1, 8000).decodeAudioData(bytes);
    const columns = 1200;
    const channels = Array.from({ length: sound.numberOfChannels }, (_, index) => sound.getChannelData(index));
    const size = Math.max(1, Math.floor(sound.length / columns));
    const found = Array.from({ length: Math.min(columns, sound.length) }, (_, column) => {
      let sum = 0;
      for (const samples of channels) {
        for (let index = column * size; index < (column + 1) * size; index += 1) sum += (samples[index] ?? 0) ** 2;
      }
      return Math.sqrt(sum / (size * channels.length));
    });
    const highest = Math.max(...found, 0.0001);
    peaks = found.map((peak) => peak / highest);
    wave.dataset.drawn = "true";
    draw();
  }

  button.addEventListener("click", toggle);
  for (const event of ["timeupdate", "seeked", "loadedmetadata", "durationchange"]) audio.addEventListener(event, show);
  for (const event of ["play", "pause", "ended"]) {
    audio.addEventListener(event, () => {
      button.classList.toggle("playing", !audio.paused);
      button.setAttribute("aria-label", audio.paused ? "Play" : "Pause");
      show();
    });
  }
  // Between the few events that there are, so that the line moves and does not jump.
  const move = () => { if (!audio.paused) { show(); requestAnimationFrame(move); } };
  audio.addEventListener("play", () => requestAnimationFrame(move));

  const there = (event) => {
    const box = wave.getBoundingClientRect();
    seek(((event.clientX - box.left) / box.width) * length());
  };
  wave.addEventListener("pointerdown", (event) => { wave.setPointerCapture(event.pointerId); there(event); });
  wave.addEventListener("pointermove", (event) => { if (wave.hasPointerCapture(event.pointerId)) there(event); });
  wave.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -5, ArrowDown: -5, ArrowRight: 5, ArrowUp: 5, PageDown: -30, PageUp: 30 };
    if (event.key in steps) seek(audio.currentTime + steps[event.key]);
    else if (event.key === "Home") seek(0);
    else if (event.key === "End") seek(length());
    else if (event.key === " " || event.key === "Enter") toggle();
    else return;
    event.preventDefault();
  });
  deck.querySelector(".rate select").addEventListener("change", (event) => { audio.playbackRate = Number(event.target.value); });

  // A click on a turn plays it. Who marks words to copy them does not click.
  document.querySelector(".turns").addEventListener("click", (event) => {
    const turn = event.target.closest(".turn[data-from]");
    if (!turn || (!event.target.closest(".seek") && String(getSelection()))) return;
    event.preventDefault();
    seek(Number(turn.dataset.from));
    audio.play().catch(() => {});
  });

  new ResizeObserver(draw).observe(wave);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  show();
  listen().catch(() => {});
}

remember(document);
localise(document);
dress(document);
follow();
