// A chat of a student and a teacher, as either of them sees it.

import type { Channel } from "phoenix";
import { connection } from "./connection";
import { type Id, keep, kept, name, nameOf } from "./identity";
import { type Entry, Log, type Stored } from "./log";
import { Model } from "./model";
import { words } from "./words";

export type Role = "student" | "teacher";
export type Ending = "you" | "they" | "requeued" | "gone";

interface ChatRecord {
  id: string;
  status: "active" | "finished";
  teacher_id: Id;
  student_id: Id;
  messages?: Stored[];
}

interface Joined {
  chat: ChatRecord;
  last_seq: number;
}

export class Chat extends Model {
  readonly id: string;
  readonly log: Log;
  /** The other one's name. */
  other = "";
  /** Both have entered. */
  ready = false;
  joined = false;
  ended: Ending | null = null;
  readonly #channel: Channel;
  /** The last that was looked at. */
  #seen: number;
  #ending = false;
  /** It had ended when this tab came. */
  #late = false;

  constructor(
    readonly role: Role,
    me: Id,
    chat: Pick<ChatRecord, "id"> & Partial<ChatRecord>,
    /** Said first, if nothing was said yet. */
    private readonly opening = "",
  ) {
    super();
    this.id = chat.id;
    this.#meet(chat);
    this.#seen = kept<number>(this.#seenKey) ?? 0;
    const params = () => ({ userId: me, role, ...(this.log.last && { last_seq: this.log.last }) });
    this.#channel = connection.channel(`chats:${chat.id}`, params);
    this.log = new Log(this.#channel, (stored) => this.#read(stored), `switchboard:outbox:${chat.id}:${role}`);
    this.#listen();
  }

  #meet(chat: Partial<ChatRecord>): void {
    const other = this.role === "student" ? chat.teacher_id : chat.student_id;
    if (other !== undefined && !this.other) this.other = nameOf(other);
  }

  #read({ event, payload, at, id }: Stored): Omit<Entry, "seq" | "n"> | null {
    const mine = event === `${this.role}:send`;
    if (!mine && event !== `${this.#others}:send`) return null;
    return this.#entry(payload, mine, at ? Date.parse(at) : 0, id);
  }

  get #seenKey(): string {
    return `switchboard:seen:${this.id}:${this.role}`;
  }

  get #others(): Role {
    return this.role === "student" ? "teacher" : "student";
  }

  #entry(payload: Record<string, unknown>, mine: boolean, at: number, id?: string): Omit<Entry, "seq" | "n"> {
    const { message, name } = payload;
    if (!mine && typeof name === "string" && name) this.other = name.slice(0, 100);
    const text = typeof message === "string" ? message : JSON.stringify(message ?? payload);
    return { kind: "message", at, from: mine ? "" : this.other, mine, text, ...(id && { id }) };
  }

  #listen(): void {
    const channel = this.#channel;
    channel.on(`${this.role}:receive`, (payload) => {
      this.log.put(payload.seq, this.#entry(payload, false, Date.now(), payload.id));
      this.changed();
    });
    channel.on("gap", () => this.log.gap());
    channel.on("chat:ready", () => {
      this.ready = true;
      this.changed();
    });
    channel.on("chat:terminated", () => this.#end(this.#ending ? "you" : this.#late ? "gone" : "they"));
    // Who wanted it to end does not want another one instead.
    channel.on("chat:requeued", () => this.#end(this.#ending ? "you" : "requeued"));
    channel
      .join()
      .receive("ok", ({ chat, last_seq }: Joined) => {
        this.joined = true;
        this.#late = chat.status === "finished";
        this.#meet(chat);
        const known = this.log.last;
        const messages = chat.messages ?? [];
        this.log.merge(messages);
        if (!known) this.log.last = last_seq;
        channel.push(`${this.role}:joined`, {});
        this.log.joined();
        // Its id is the chat's, so that it is stored once, however often this page is loaded.
        if (this.opening && !messages.some(({ event }) => event === `${this.role}:send`) && !this.log.outbox.length) {
          this.say(this.opening, `opening-${this.id}`);
        }
        if (this.#ending) this.#terminate();
        this.changed();
      })
      .receive("error", ({ reason }) => {
        if (reason === "not_found" || reason === "unauthorized" || reason === "chat_finished") this.#end("gone");
      });
  }

  say(text: string, id?: string): void {
    this.log.send(`${this.role}:send`, { message: text, name: name() }, { text, ...(id && { id }) });
  }

  /** Ends it for both. */
  end(): void {
    this.#ending = true;
    this.changed();
    if (this.#channel.state === "joined") this.#terminate();
  }

  get ending(): boolean {
    return this.#ending;
  }

  #terminate(): void {
    this.#channel.push("chat:terminate", {}).receive("error", ({ reason }) => {
      if (reason === "unavailable") setTimeout(() => this.ended || this.#terminate(), 1_000);
      else this.log.note(words(reason));
    });
  }

  #end(ending: Ending): void {
    if (this.ended) return;
    this.ended = ending;
    keep(this.#seenKey, null);
    this.log.end("The chat had ended before this was sent.");
    this.log.changed();
    connection.done(this.#channel);
    this.changed();
  }

  /** Is not shown any more; for the other one it goes on, with somebody else. */
  drop(): void {
    if (this.ended) return;
    this.ended = "gone";
    keep(this.#seenKey, null);
    this.log.end("");
    connection.done(this.#channel);
  }

  /** Messages that nobody has looked at, also those that were there before this tab came. */
  get unread(): number {
    return this.log.entries.filter(({ kind, mine, seq }) => kind === "message" && !mine && seq > this.#seen).length;
  }

  read(): void {
    if (this.log.last <= this.#seen) return;
    this.#seen = this.log.last;
    keep(this.#seenKey, this.ended ? null : this.#seen);
    this.changed();
  }
}
