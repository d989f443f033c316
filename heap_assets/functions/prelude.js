// Runs first in every context: takes away the host's clock and chance, adds the helpers, freezes all built-in objects.
(function () {
  "use strict";
  const { parse, stringify } = JSON;
  const { freeze, getOwnPropertyDescriptor, getPrototypeOf, defineProperty } = Object;
  const { ownKeys, apply } = Reflect;
  const isArray = Array.isArray;
  const then = Promise.prototype.then;
  const Internal = InternalError;
  const HostDate = Date;
  let now = 0;
  let state = 0;
  let position = -1;

  function next() {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return (mixed ^ (mixed >>> 14)) >>> 0;
  }
  const random = () => ((next() >>> 5) * 67108864 + (next() >>> 6)) / 9007199254740992;

  // -- clock, chance, collection: what would make a rebuilt day another one
  function SandboxDate(...parts) {
    if (new.target === undefined) return new HostDate(now).toString();
    return Reflect.construct(HostDate, parts.length ? parts : [now], new.target);
  }
  SandboxDate.prototype = HostDate.prototype;
  defineProperty(SandboxDate, "name", { value: "Date" });
  SandboxDate.now = () => now;
  SandboxDate.parse = HostDate.parse;
  SandboxDate.UTC = HostDate.UTC;
  defineProperty(HostDate.prototype, "constructor", { value: SandboxDate });
  globalThis.Date = SandboxDate;
  Math.random = random;
  for (const name of ["performance", "WeakRef", "FinalizationRegistry", "Atomics", "SharedArrayBuffer"]) {
    delete globalThis[name];
  }

  // -- helpers
  const ROUNDS = [];
  const START = [];
  function constants() {
    for (let candidate = 2; ROUNDS.length < 64; candidate++) {
      let isPrime = true;
      for (let by = 2; by * by <= candidate; by++) if (candidate % by === 0) isPrime = false;
      if (!isPrime) continue;
      if (START.length < 8) START.push((Math.sqrt(candidate) * 4294967296) | 0);
      ROUNDS.push((Math.cbrt(candidate) * 4294967296) | 0);
    }
  }
  function utf8(text) {
    const bytes = [];
    for (const character of text.toWellFormed()) {
      const code = character.codePointAt(0);
      if (code < 0x80) bytes.push(code);
      else if (code < 0x800) bytes.push(0xc0 | (code >> 6), 0x80 | (code & 63));
      else if (code < 0x10000) bytes.push(0xe0 | (code >> 12), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
      else bytes.push(0xf0 | (code >> 18), 0x80 | ((code >> 12) & 63), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
    }
    return bytes;
  }
  function sha256(value) {
    if (!ROUNDS.length) constants();
    const bytes = utf8(String(value));
    const bits = bytes.length * 8;
    bytes.push(0x80);
    while (bytes.length % 64 !== 56) bytes.push(0);
    const high = Math.floor(bits / 4294967296);
    for (const word of [high, bits | 0]) bytes.push(word >>> 24, (word >>> 16) & 255, (word >>> 8) & 255, word & 255);
    const sums = START.slice();
    const words = new Int32Array(64);
    for (let block = 0; block < bytes.length; block += 64) {
      for (let i = 0; i < 16; i++) {
        const at = block + i * 4;
        words[i] = (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
      }
      for (let i = 16; i < 64; i++) {
        const a = words[i - 15];
        const b = words[i - 2];
        const s0 = ((a >>> 7) | (a << 25)) ^ ((a >>> 18) | (a << 14)) ^ (a >>> 3);
        const s1 = ((b >>> 17) | (b << 15)) ^ ((b >>> 19) | (b << 13)) ^ (b >>> 10);
        words[i] = (words[i - 16] + s0 + words[i - 7] + s1) | 0;
      }
      let [a, b, c, d, e, f, g, h] = sums;
      for (let i = 0; i < 64; i++) {
        const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
        const t1 = (h + s1 + ((e & f) ^ (~e & g)) + ROUNDS[i] + words[i]) | 0;
        const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
        const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
        h = g; g = f; f = e; e = (d + t1) | 0; d = c; c = b; b = a; a = (t1 + t2) | 0;
      }
      [a, b, c, d, e, f, g, h].forEach((word, i) => { sums[i] = (sums[i] + word) | 0; });
    }
    return sums.map((word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
  }
  function decoded(text) {
    const spaced = text.replace(/\+/g, " ");
    try {
      return decodeURIComponent(spaced);
    } catch {
      return spaced; // a stray %: left as it stands
    }
  }
  function param(url, name) {
    if (typeof url !== "string") return null;
    const query = /\?([^#]*)/.exec(url);
    for (const pair of query ? query[1].split("&") : []) {
      const at = pair.indexOf("=");
      if (decoded(at < 0 ? pair : pair.slice(0, at)) === String(name)) return at < 0 ? "" : decoded(pair.slice(at + 1));
    }
    return null;
  }
  function normalise(address) {
    if (typeof address !== "string") return null;
    const text = address.normalize("NFKC").trim().toLowerCase();
    return /^[^\s@]+@[^\s@]+$/.test(text) ? text : null;
  }
  const LINES = 100;
  const WIDTH = 500;
  let lines = [];
  let left_off = 0;
  function shown(value) {
    try {
      return typeof value === "string" ? value : String(stringify(value));
    } catch {
      return String(value);
    }
  }
  function log(...values) {
    if (lines.length >= LINES) left_off++;
    else lines.push([position, values.map(shown).join(" ").slice(0, WIDTH).toWellFormed()]);
  }
  globalThis.url = { param };
  globalThis.hash = { sha256 };
  globalThis.email = { normalise };
  globalThis.console = { log, info: log, warn: log, error: log, debug: log };

  // -- freezing. Names that people assign to objects of their own stay assignable there (Object.freeze would forbid it)
  function assignable(holder, names) {
    for (const name of names) {
      const was = getOwnPropertyDescriptor(holder, name);
      if (!was || !("value" in was)) continue;
      defineProperty(holder, name, {
        get: () => was.value,
        set(value) {
          if (this === holder) throw new TypeError(`built-in objects are frozen: ${String(name)}`);
          defineProperty(this, name, { value, writable: true, enumerable: true, configurable: true });
        },
        enumerable: false,
        configurable: false,
      });
    }
  }
  assignable(Object.prototype, ["constructor", "toString", "valueOf", "toLocaleString", "hasOwnProperty"]);
  assignable(Error.prototype, ["name", "message", "toString", "constructor"]);
  const hidden = [
    function* () {}, async function () {}, async function* () {}, [][Symbol.iterator](), new Map().entries(),
    new Set().values(), ""[Symbol.iterator](), "".matchAll(/a/g), (function* () {})(), (async function* () {})(),
    Iterator.from({ next() {} }), [].values().map((each) => each),
  ];
  const queue = [globalThis, ...hidden];
  const isFrozen = Object.isFrozen;
  const visit = (value) => {
    if (value !== null && (typeof value === "object" || typeof value === "function") && !isFrozen(value)) {
      freeze(value);
      queue.push(value);
    }
  };
  freeze(globalThis);
  for (const each of hidden) freeze(each);
  while (queue.length) {
    const each = queue.pop();
    for (const key of ownKeys(each)) {
      if (key === "length" || key === "name") continue; // numbers and texts, of each function: half of all properties
      const property = getOwnPropertyDescriptor(each, key);
      if (property.get || property.set) {
        visit(property.get);
        visit(property.set);
      } else visit(property.value);
    }
    visit(getPrototypeOf(each));
  }

  // -- rows
  const drops = new WeakMap();
  function drop(reason) {
    const dropped = freeze({});
    drops.set(dropped, String(reason ?? "null").slice(0, 100).toWellFormed());
    return dropped;
  }
  function checked(value, depth) {
    if (typeof value !== "object" || value === null) return;
    if (depth === 0) throw new RangeError("the result is nested too deeply");
    for (const key in value) {
      const inner = value[key];
      if (typeof inner === "object" && inner !== null) checked(inner, depth - 1);
    }
  }
  function text_of(value, meta) {
    const text = stringify(value);
    if (text === undefined) throw new TypeError(`the result is a ${typeof value}`);
    if (text.length > meta.row_bytes) throw new RangeError(`the result is longer than ${meta.row_bytes} characters`);
    return text;
  }
  function outcome(value, meta) {
    if (meta.mode === "batch") return text_of(value, meta);
    if (value === null) return [1, '"null"'];
    if (typeof value !== "object") {
      throw new TypeError(`the function returned ${value === undefined ? "nothing" : `a ${typeof value}`}; ` +
        "expected an object, null to drop the row, or a list of objects");
    }
    if (drops.has(value)) return [1, stringify(drops.get(value))];
    if (!isArray(value)) return text_of(value, meta);
    for (const each of value) {
      if (typeof each !== "object" || each === null || isArray(each)) throw new TypeError("a list must hold objects");
    }
    return [2, text_of(value, meta)];
  }
  function failure(error) {
    let name = "Error", message = "", stack = "";
    try {
      if (typeof error === "object" && error !== null) {
        name = String(error.name ?? "Error");
        message = String(error.message ?? "");
        stack = String(error.stack ?? "");
      } else message = String(error);
    } catch {
      message = "an error that cannot be read";
    }
    return [3, [`${name}: ${message}`.slice(0, 1000), stack.slice(0, 4000)]
      .map((part) => stringify(part.toWellFormed())).join(",")];
  }
  let slots = [];
  let returned = [];
  let bytes = 0;
  let limit = 0;
  // of a result that is one object its text, of every other what it is and its text
  function settle(index, slot) {
    bytes += typeof slot === "string" ? slot.length : slot[1].length;
    if (bytes > limit) throw new Internal(`the results are longer than ${limit} characters`);
    slots[index] = slot;
  }
  function attempt(index, get, meta) {
    try {
      const value = get();
      if (value instanceof Promise) {
        apply(then, value, [(result) => attempt(index, () => result, meta), (error) => settle(index, failure(error))]);
      } else {
        settle(index, outcome(value, meta));
        returned[index] = value;
      }
    } catch (error) {
      // memory that ran out may still be held: the whole batch is tried row by row. Where there is none left for an
      // error, the engine throws null
      if (error instanceof Internal || error === null) throw error;
      settle(index, failure(error));
    }
  }
  const PENDING = failure(new TypeError("the function returned a Promise that never resolves"));
  function start(user, rows_text, meta_text) {
    const meta = parse(meta_text);
    const rows = parse(rows_text);
    const entry = user[meta.entry];
    const context = freeze({ ...meta.context, now: meta.now, random, drop });
    now = meta.now;
    limit = meta.output_bytes;
    const calls = meta.mode === "batch" ? [rows] : rows;
    slots = calls.map(() => PENDING);
    for (let index = 0; index < calls.length; index++) {
      position = meta.first + index;
      state = Math.imul(meta.seed ^ position, 0x9e3779b1) | 0;
      attempt(index, () => entry(calls[index], context), meta);
    }
  }
  function finish() {
    const log = `"log":${stringify(lines)},"left_off":${left_off}`;
    const isPlain = slots.every((slot) => typeof slot === "string");
    // joined, not added: the binding cannot read a text that the engine still holds in pieces
    if (isPlain) return [`{${log}}`, ...slots].join("\n");
    const rows = slots.map((slot) => (typeof slot === "string" ? `[0,${slot}]` : `[${slot[0]},${slot[1]}]`));
    return [`{"rows":[`, rows.join(","), "],", log, "}"].join("");
  }
  // how many brackets open in the answer if no result has anything nested in it
  function brackets() {
    const plain = slots.filter((slot) => typeof slot === "string").length;
    return plain === slots.length ? plain + 2 : slots.length + plain + 3;
  }
  function check_depth(meta) {
    for (let index = 0; index < returned.length; index++) {
      try {
        checked(returned[index], meta.depth);
      } catch (error) {
        slots[index] = failure(error);
      }
    }
    return finish();
  }
  function check(user, meta) {
    if (typeof user[meta.entry] === "function") return;
    throw new TypeError(meta.entry === "default" ? "there is no `export default function`" : `there is no \`export function ${meta.entry}\``);
  }
  return (step, user, rows_text, meta_text) => {
    if (step === "finish") return finish();
    if (step === "brackets") return brackets();
    if (step === "check_depth") return check_depth(parse(meta_text));
    return step === "check" ? check(user, parse(meta_text)) : start(user, rows_text, meta_text);
  };
})()
