"use strict";
// One comparison at a time. An answer is kept in this browser until the server has said that it is
// stored, and sent again with the same key until then: nothing is lost and nothing counts twice.

const $ = (id) => document.getElementById(id);
const PENDING = "equilign-label-pending";
const NAME = "equilign-label-name";
const KEYS = {
  ArrowLeft: "left", ArrowRight: "right", ArrowDown: "tie", t: "tie", s: "skip", u: "undo",
};
// Answers that can never be stored, such as one to a pair that was answered in another window.
const FINAL = new Set([400, 404, 409]);
const SAID = { left: "Stored.", right: "Stored.", tie: "Stored as a tie.", skip: "Skipped." };

let annotator = "";
let comparison = null;
let last = null;
let shownAt = 0;
let hiddenFor = 0;
let hiddenSince = null;
let busy = false;
let timer = 0;

const memory = new Map();
const keep = {
  // A browser may forbid storage; then the page remembers while it is open.
  get(name) {
    try { return localStorage.getItem(name); } catch { return memory.get(name) ?? null; }
  },
  set(name, value) {
    try { localStorage.setItem(name, value); } catch { memory.set(name, value); }
  },
  remove(name) {
    try { localStorage.removeItem(name); } catch { memory.delete(name); }
  },
};

function pendingName() {
  return `${PENDING}:${annotator}`;
}

function newKey() {
  // crypto.randomUUID is missing on pages that come over plain HTTP from another machine.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function say(text, quiet = true) {
  $("message").textContent = text;
  $("message").classList.toggle("quiet", quiet);
}

async function call(path, body) {
  const response = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ annotator, ...body }),
    cache: "no-store",
    credentials: "same-origin",
  });
  const found = await response.json();
  if (!response.ok) throw Object.assign(new Error(found.error), { status: response.status });
  return found;
}

function enable() {
  // Not `disabled`, which would take the focus away from who works with the tab key.
  const set = (id, off) => $(id).setAttribute("aria-disabled", String(off));
  for (const name of ["left", "right", "tie", "skip"]) {
    set(`choose-${name}`, busy || comparison === null);
  }
  set("undo", busy || last === null);
}

function show(found) {
  comparison = found.comparison;
  last = found.standing.last;
  $("question").textContent = found.question;
  $("compare").hidden = comparison === null;
  $("idle").hidden = comparison !== null;
  const { answered, wanted, mine } = found.standing;
  $("progress").max = Math.max(wanted, 1);
  $("progress").value = answered;
  $("counts").textContent = `${answered} of ${wanted} answered, ${mine} by you`;
  if (comparison !== null) {
    for (const name of ["prompt", "left", "right"]) $(name).textContent = comparison[name];
    shownAt = performance.now();
    hiddenFor = 0;
    hiddenSince = document.hidden ? shownAt : null;
    scrollTo(0, 0);
  } else {
    $("idle").textContent = answered >= wanted
      ? "Everything is answered. Thank you! New comparisons appear here by themselves."
      : "Nothing for you right now: others are at the rest, or you have answered it. "
        + "New comparisons appear here by themselves.";
    timer = setTimeout(next, 2000);
  }
  enable();
}

async function work(task) {
  clearTimeout(timer);
  busy = true;
  enable();
  try {
    await task();
  } finally {
    busy = false;
    enable();
  }
}

const pause = (milliseconds) => new Promise((done) => { setTimeout(done, milliseconds); });

// Ask until there is an answer: the server may be stopped and come back.
async function insist(path, body, kept) {
  for (let tries = 0; ; tries += 1) {
    try {
      return await call(path, body);
    } catch (error) {
      if (error.status !== undefined && error.status < 500) throw error;
      const reason = error.status === undefined ? "The server does not answer." : error.message;
      say(kept ? `${reason} Your answer is kept here and sent again.` : reason, false);
      await pause(Math.min(250 * 2 ** tries, 3000));
    }
  }
}

function next() {
  return work(async () => {
    try {
      show(await insist("/api/next", {}, false));
      if (!$("message").classList.contains("quiet")) say("");
    } catch (error) {
      say(error.message, false);
    }
  });
}

async function send(answer) {
  try {
    show(await insist("/api/answer", answer, true));
    say(SAID[answer.choice]);
  } catch (error) {
    say(error.message, false);
    // Not let in (a new token, say): the answer waits here until the page is opened again.
    if (!FINAL.has(error.status)) return;
    show(await insist("/api/next", {}, false));
  }
  keep.remove(pendingName());
}

function choose(choice) {
  if (busy || comparison === null) return;
  const away = hiddenFor + (hiddenSince === null ? 0 : performance.now() - hiddenSince);
  const seconds = Math.max(0, performance.now() - shownAt - away) / 1000;
  const answer = { pair: comparison.pair, choice, key: newKey(), seconds };
  keep.set(pendingName(), JSON.stringify(answer));
  work(() => send(answer));
}

function undo() {
  if (busy || last === null) return;
  const key = last;
  work(async () => {
    try {
      show(await insist("/api/undo", { key }, false));
      say("Taken back.");
    } catch (error) {
      say(error.message, false);
      show(await insist("/api/next", {}, false));
    }
  });
}

function begin(name) {
  annotator = name.trim().replace(/\s+/g, " ");
  if (annotator === "") return;
  keep.set(NAME, annotator);
  $("enter").hidden = true;
  $("bar").hidden = false;
  $("who").hidden = false;
  $("name").textContent = annotator;
  const pending = keep.get(pendingName());
  if (pending === null) next();
  else work(() => send(JSON.parse(pending)));
}

function ask() {
  clearTimeout(timer);
  comparison = null;
  $("enter").hidden = false;
  for (const id of ["bar", "who", "compare", "idle"]) $(id).hidden = true;
  $("annotator").value = keep.get(NAME) ?? "";
  $("annotator").focus();
}

$("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  begin($("annotator").value);
});
$("change").addEventListener("click", () => { if (!busy) ask(); });
for (const name of ["left", "right", "tie", "skip"]) {
  $(`choose-${name}`).addEventListener("click", () => choose(name));
}
$("undo").addEventListener("click", undo);
document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
  if (event.target instanceof HTMLInputElement || $("bar").hidden) return;
  const what = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (what === undefined) return;
  event.preventDefault();
  if (what === "undo") undo();
  else choose(what);
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    hiddenSince = performance.now();
  } else if (hiddenSince !== null) {
    hiddenFor += performance.now() - hiddenSince;
    hiddenSince = null;
  }
});

const known = keep.get(NAME);
if (known) begin(known);
else ask();
