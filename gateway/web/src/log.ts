// What was said in a chat or a room, in the order of its sequence numbers, and what is on its way there.

import type { Channel } from "phoenix";
import { keep, kept, random } from "./identity";
import { Model } from "./model";
import { words } from "./words";

/** So many are kept; older ones are fetched again by scrolling up. */
const ENTRIES_MAX = 600;
const PAGE = 50;
/** So many may wait to be sent. */
const OUTBOX_MAX = 20;
/** A gateway answers within 5 s. */
const ANSWER_MS = 8_000;
const RETRY_MS = 1_000;

export interface Entry {
  /** Of the log; of what is in no log, the last one before it. */
  seq: number;
  /** Order of those with the same seq, and of nothing else. */
  n: number;
  kind: "message" | "note" | "gap";
  /** The sender's own id of the message. */
  id?: string;
  /** Milliseconds of the clock; 0: unknown. */
  at: number;
  from: string;
  mine: boolean;
  text: string;
  /** To whom, if not to all. */
  to?: string;
}

/** One's own that is not stored yet. */
export interface Outgoing {
  entry: Entry;
  event: string;
  payload: object;
  state: "waiting" | "sent" | "refused";
  why: string;
}

/** What a page of history has. */
export interface Stored {
  seq: number;
  id?: string;
  at?: string;
  event: string;
  payload: Record<string, unknown>;
  from?: Record<string, unknown> | null;
}

interface Reply {
  reason?: string;
  detail?: string;
  retry_after_ms?: number;
  seq?: number;
  recipients?: number;
}

export class Log extends Model {
  entries: Entry[] = [];
  outbox: Outgoing[] = [];
  /** The last sequence that was seen; 0: none. */
  last = 0;
  /** Nothing older is to be had. */
  complete = false;
  fetching = false;
  #n = 0;
  #flying: Outgoing | null = null;
  #retry = 0;

  constructor(
    readonly channel: Channel,
    /** Makes an entry of what a history has; null for what is not shown. */
    private readonly read: (stored: Stored) => Omit<Entry, "seq" | "n"> | null,
    /** Where what is not stored yet survives a reload. */
    private readonly key: string,
  ) {
    super();
    this.outbox = kept<Outgoing[]>(key) ?? [];
    for (const out of this.outbox) if (out.state === "sent") out.state = "waiting";
  }

  override changed(): void {
    keep(this.key, this.outbox.length ? this.outbox : null);
    super.changed();
  }

  /** Takes in what was stored; each once. */
  put(seq: number, entry: Omit<Entry, "seq" | "n">): void {
    this.last = Math.max(this.last, seq);
    const mine = entry.mine && entry.id ? this.outbox.findIndex((out) => out.entry.id === entry.id) : -1;
    if (mine >= 0) this.#landed(this.outbox[mine]!);
    const known = this.entries.findLastIndex((other) => other.seq === seq && other.n === 0);
    const at = this.entries.findLastIndex((other) => other.seq <= seq);
    if (known >= 0) {
      // The history knows its time better.
      if (entry.at) this.entries[known] = { ...entry, seq, n: 0 };
    } else {
      this.entries.splice(at + 1, 0, { ...entry, seq, n: 0 });
      this.#trim(at + 1);
    }
    this.changed();
  }

  /** Something that is in no log: it stands where it came. */
  say(entry: Omit<Entry, "seq" | "n">): void {
    this.#n += 1;
    this.entries.push({ ...entry, seq: this.last, n: this.#n });
    this.#trim(this.entries.length);
    this.changed();
  }

  note(text: string): void {
    this.say({ kind: "note", at: Date.now(), from: "", mine: false, text });
  }

  gap(): void {
    this.say({ kind: "gap", at: Date.now(), from: "", mine: false, text: "Messages are missing here: they are no longer kept." });
  }

  /** A page of history, or what a join brings. */
  merge(messages: Stored[], complete?: boolean): void {
    if (complete !== undefined) this.complete = complete;
    for (const stored of messages) {
      const entry = this.read(stored);
      if (entry) this.put(stored.seq, entry);
      else this.last = Math.max(this.last, stored.seq);
    }
    this.changed();
  }

  /** Fetches what stands before the first one. */
  older(): void {
    const first = this.entries.find((entry) => entry.n === 0);
    if (this.fetching || this.complete || this.channel.state !== "joined") return;
    this.fetching = true;
    this.changed();
    const done = (messages: Stored[], complete?: boolean) => {
      this.fetching = false;
      this.merge(messages, complete);
    };
    this.channel
      .push("history", { ...(first && { before: first.seq }), limit: PAGE }, ANSWER_MS)
      .receive("ok", ({ messages, complete }) => done(messages, complete))
      .receive("error", () => done([]))
      .receive("timeout", () => done([]));
  }

  get full(): boolean {
    return this.outbox.filter((out) => out.state !== "refused").length >= OUTBOX_MAX;
  }

  /** Sends a message; it is shown at once, and kept until it is stored or refused. */
  send(event: string, payload: object, entry: Pick<Entry, "text"> & Partial<Entry>): void {
    const id = entry.id ?? random(12);
    this.#n += 1;
    this.outbox.push({
      entry: { kind: "message", at: Date.now(), from: "", mine: true, seq: 0, ...entry, n: this.#n, id },
      event,
      payload: { ...payload, id },
      state: "waiting",
      why: "",
    });
    this.changed();
    this.flush();
  }

  /** What was refused is sent once more, or forgotten. */
  again(out: Outgoing, forget = false): void {
    this.outbox = this.outbox.filter((other) => other !== out);
    if (!forget) {
      const { id: _, ...rest } = out.entry;
      this.send(out.event, out.payload, rest);
    }
    this.changed();
  }

  /** The channel was joined, again perhaps: what was on its way is sent again, with the id that it had. */
  joined(): void {
    this.#flying = null;
    this.fetching = false;
    this.flush();
  }

  /** One after the other, so that they are stored in the order in which they were written. */
  flush(): void {
    const out = this.outbox.find((other) => other.state !== "refused");
    if (this.#flying || !out || this.channel.state !== "joined") return;
    this.#flying = out;
    out.state = "sent";
    const later = (wait: number) => {
      if (this.#flying !== out) return;
      this.#flying = null;
      out.state = "waiting";
      clearTimeout(this.#retry);
      this.#retry = window.setTimeout(() => this.flush(), wait);
      this.changed();
    };
    this.channel
      .push(out.event, out.payload, ANSWER_MS)
      .receive("ok", (reply: Reply) => this.#stored(out, reply))
      .receive("error", (reply: Reply) => {
        if (reply.reason === "unavailable" || reply.reason === "rate_limited") {
          later(reply.retry_after_ms ?? RETRY_MS);
        } else {
          this.#refuse(out, words(reply.reason, reply.detail));
        }
      })
      .receive("timeout", () => later(0));
    this.changed();
  }

  /** The channel has ended for good: what waits is refused. */
  end(why: string): void {
    clearTimeout(this.#retry);
    for (const out of this.outbox) if (out.state !== "refused") this.#refuse(out, why);
  }

  #stored(out: Outgoing, reply: Reply): void {
    if (reply.seq !== undefined) this.put(reply.seq, out.entry);
    else if (reply.recipients === 0) this.#refuse(out, "Nobody got it: they have left.");
    else {
      this.#landed(out);
      this.say(out.entry);
    }
  }

  #refuse(out: Outgoing, why: string): void {
    out.state = "refused";
    out.why = why;
    if (this.#flying === out) this.#flying = null;
    this.flush();
    this.changed();
  }

  #landed(out: Outgoing): void {
    this.outbox = this.outbox.filter((other) => other !== out);
    if (this.#flying === out) this.#flying = null;
    this.flush();
  }

  /** Forgets the end that is farther from where something was just added. */
  #trim(at: number): void {
    if (this.entries.length <= ENTRIES_MAX) return;
    if (at > ENTRIES_MAX / 2) {
      this.entries.shift();
      this.complete = false;
    } else this.entries.pop();
  }
}
