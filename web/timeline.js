// Which chunks are made, seen and to come, and which prompt reaches which.

import { clock } from "./words.js";

const MOST_CELLS = 48;
const FEWEST_CELLS = 8;

/** Draws the cells, and lists the prompts. */
export class Timeline {
  #cells;
  #list;
  #entries = []; // { text, chunk, row, state }
  #drawn = "";

  constructor(cells, list) {
    this.#cells = cells;
    this.#list = list;
    this.clear();
  }

  clear() {
    this.#entries = [];
    this.#list.replaceChildren();
    this.#drawn = "";
    this.#cells.replaceChildren(...Array.from({ length: FEWEST_CELLS }, emptyCell));
    this.#cells.setAttribute("aria-label", "Nothing yet");
  }

  /** A prompt that is on its way; what is returned takes its answer. */
  add(text, chunk = null) {
    const row = document.createElement("li");
    const parts = ["when", "what", "where"].map((name) => {
      const part = document.createElement("span");
      part.className = name;
      return part;
    });
    parts[1].textContent = text;
    row.append(...parts);
    this.#list.append(row);
    const entry = { text, chunk, row, state: "", refused: "" };
    this.#entries.push(entry);
    this.#entries.sort((a, b) => (a.chunk ?? Infinity) - (b.chunk ?? Infinity));
    this.#list.scrollTop = this.#list.scrollHeight;
    return {
      reaches: (index) => {
        entry.chunk = index;
        this.#drawn = "";
      },
      refused: (words) => {
        entry.refused = words;
      },
    };
  }

  /** Whether a prompt with this text and chunk is listed already. */
  has(text, chunk) {
    return this.#entries.some((entry) => entry.text === text && (entry.chunk === chunk || entry.chunk === null));
  }

  /**
   * now: the chunk on the screen (-1: none). done: chunks made. total: of the video; 0: nobody knows. making: whether one is
   * being made. seconds: of a chunk. soon: seconds until a chunk's first picture is on the screen, or null.
   */
  draw({ now, done, total, making, seconds, soon }) {
    const current = this.#entries.filter((each) => each.chunk !== null && each.chunk <= Math.max(now, 0)).at(-1);
    for (const entry of this.#entries) this.#tell(entry, entry === current, { now, seconds, soon });
    const turns = new Set(this.#entries.filter((each) => !each.refused).map((each) => each.chunk));
    const state = [now, done, total, making, ...turns].join();
    if (state === this.#drawn) return;
    this.#drawn = state;
    const wanted = total || Math.max(FEWEST_CELLS, done + 3);
    const first = Math.max(0, Math.min(wanted - MOST_CELLS, Math.max(now, 0) - MOST_CELLS / 2));
    const cells = [];
    for (let index = Math.floor(first); index < wanted && cells.length < MOST_CELLS; index += 1) {
      const cell = emptyCell();
      if (index === now) cell.classList.add("now");
      else if (index < now) cell.classList.add("seen");
      else if (index < done) cell.classList.add("made");
      else if (index === done && making) cell.classList.add("making");
      if (turns.has(index)) cell.classList.add("turn");
      cells.push(cell);
    }
    this.#cells.replaceChildren(...cells);
    const of = total ? ` of ${total}` : "";
    const seen = now >= 0 ? `chunk ${now + 1} is on the screen, ` : "";
    this.#cells.setAttribute("aria-label", `${seen}${done}${of} chunks are made`);
  }

  #tell(entry, current, { now, seconds, soon }) {
    const [when, , where] = entry.row.children;
    const state = placed(entry, current, now, soon);
    const text = entry.chunk === null ? "" : clock(entry.chunk * seconds);
    if (when.textContent !== text) when.textContent = text;
    if (where.textContent !== state) where.textContent = state;
    entry.row.classList.toggle("current", current && now >= 0);
    entry.row.classList.toggle("refused", Boolean(entry.refused));
  }
}

function emptyCell() {
  const cell = document.createElement("span");
  cell.className = "cell";
  return cell;
}

function placed(entry, current, now, soon) {
  if (entry.refused) return entry.refused;
  if (entry.chunk === null) return "on its way";
  const name = `chunk ${entry.chunk + 1}`;
  if (entry.chunk > now) {
    const left = soon?.(entry.chunk);
    return left ? `reaches ${name}, in about ${Math.max(1, Math.round(left))} s` : `reaches ${name}`;
  }
  return current ? `on screen, from ${name} on` : `was seen from ${name} on`;
}
