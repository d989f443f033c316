// What a function of heap_assets may use. Written by `heap-assets function new`.

declare namespace HeapAssets {
  /** Times are ISO 8601 in UTC, ids and numbers beyond 2^53 are text. */
  type Value = string | number | boolean | null;
  type Row = Record<string, Value>;
  type Result = Row | Row[] | null | Dropped;
  interface Dropped {
    readonly __dropped: never;
  }
  interface Context {
    /** Event table, and its day as 2026-01-31; of a table's function. */
    readonly table?: string;
    readonly day?: string;
    /** Name of the sync; of a function that sends. */
    readonly sync?: string;
    /** Milliseconds since 1970: the end of the day that is built, or when the run began. `Date.now()` is the same. */
    readonly now: number;
    /** From 0 to 1; the same for the same row whenever its day is built. `Math.random()` is the same. */
    random(): number;
    /** Drops the row and counts it under a reason: `return context.drop("robot")`. */
    drop(reason: string): Dropped;
  }
  interface SentRow {
    /** The same on a resend. */
    readonly id: string;
    readonly key: string;
    readonly event?: string;
    readonly time?: string;
    readonly properties: Row;
  }
  interface Request {
    url: string;
    method?: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
    headers?: Record<string, string>;
    /** Text, or anything else as JSON. */
    body?: unknown;
    /** Places of the rows that it is about; all unless given. */
    rows?: number[];
  }
}

declare const url: {
  /** The value of a query parameter, %XX and + decoded; null if there is none. */
  param(address: string | null, name: string): string | null;
};
declare const hash: {
  /** 64 hex digits, of the text as UTF-8. */
  sha256(value: unknown): string;
};
declare const email: {
  /** Trimmed, lower case, NFKC; null if it is no address. */
  normalise(address: string | null): string | null;
};
declare const console: {
  /** Kept for a hundred lines of 500 characters, values of the row masked. */
  log(...values: unknown[]): void;
};
