// A room: many talk, and see who is there.

import { type Channel, Presence } from "phoenix";
import { connection } from "./connection";
import { complete, type Id, id, keep, kept, nameOf, roomToken, session } from "./identity";
import { type Entry, Log, type Stored } from "./log";
import { Model } from "./model";
import { words } from "./words";

const KEY = "switchboard:room";
export const MODERATOR = 100;
export const VIP = 50;
/** Somebody who types says so this often, and is forgotten after some more. */
const TYPING_MS = 2_000;
const TYPING_SHOWN_MS = 4_000;

export interface Person {
  /** `<user>:<session>`, by which a message finds them. */
  key: string;
  user: string;
  name: string;
  since: number;
  me: boolean;
}

interface Kept {
  id: Id;
  room: string;
  rank: number;
}

interface State {
  title: string | null;
  quiet: boolean;
  quiet_rank: number;
}

interface Joined {
  room: State;
  rank: number;
  last_seq: number;
  keywords: Keyword[];
}

interface Keyword {
  keyword: string;
  expires_at: string;
}

class Room extends Model {
  phase: "form" | "joining" | "there" | "closed" = "form";
  room = "";
  /** What was asked for, and what it is. */
  rank = 10;
  title = "";
  quiet = false;
  quietRank = VIP;
  keywords: Keyword[] = [];
  people: Person[] = [];
  /** Of a room that is too large for a list. */
  count: number | null = null;
  log: Log | null = null;
  notice = "";
  #typing = new Map<string, number>();
  #typed = 0;
  #me: Id = "";
  #asked = 10;
  #channel: Channel | null = null;
  #presence: Presence | null = null;

  resume(): void {
    const was = kept<Kept>(KEY);
    if (!complete()) return keep(KEY, null);
    if (was) this.join(was.room, was.rank, was.id);
  }

  join(room: string, rank: number, me = id()): void {
    if (this.#channel) this.leave();
    this.#me = me;
    this.room = room;
    this.#asked = this.rank = rank;
    this.phase = "joining";
    this.notice = "";
    keep(KEY, { id: me, room, rank } satisfies Kept);
    const channel = connection.channel(`room:${room}`, () => ({
      userId: me,
      session_id: session(),
      rank: this.#asked,
      ...(roomToken() && { room_token: roomToken() }),
      ...(this.log?.last && { last_seq: this.log.last }),
    }));
    this.#channel = channel;
    this.log = new Log(channel, (stored) => this.#read(stored), `switchboard:outbox:room:${room}`);
    this.#listen(channel, this.log);
    this.changed();
  }

  #listen(channel: Channel, log: Log): void {
    // Other servers say things under names of their own, which have their places in the order, too.
    channel.onMessage = (event, payload) => {
      const said = event === "new_msg" || event !== "room:state" && typeof payload?.seq === "number";
      if (said) this.#came(log, event, payload);
      return payload;
    };
    channel.on("room:state", (state: State & { granted?: { user_id: Id; rank: number } }) => this.#state(state));
    channel.on("keywords", ({ keywords }) => {
      this.keywords = keywords;
      this.changed();
    });
    channel.on("gap", () => log.gap());
    channel.on("typing", ({ from }) => this.#types(String(from?.user_id ?? "")));
    channel.on("presence_count", ({ count }) => {
      this.count = count;
      this.people = [];
      this.changed();
    });
    channel.on("presence_state", (state) => {
      if (Object.keys(state).length) this.count = null;
    });
    this.#presence = new Presence(channel);
    this.#presence.onSync(() => this.#sync());
    channel.onClose(() => {
      if (this.#channel === channel && this.phase !== "form") this.#close("You were taken out of the room.");
    });
    channel
      .join()
      .receive("ok", (joined: Joined) => this.#joined(channel, log, joined))
      .receive("error", ({ reason, detail }) => {
        if (reason !== "unavailable") this.#close(words(reason, detail));
      });
  }

  #joined(channel: Channel, log: Log, joined: Joined): void {
    const fresh = log.last === 0;
    this.phase = "there";
    this.rank = joined.rank;
    this.keywords = joined.keywords;
    this.#set(joined.room);
    if (fresh) {
      log.last = joined.last_seq;
      log.joined();
      log.older();
    } else {
      log.joined();
      // What this tab itself had sent when the connection was lost: a member is told what others say.
      channel.push("history", { limit: 50 }).receive("ok", ({ messages }) => log.merge(messages));
    }
    this.changed();
  }

  #close(notice: string): void {
    this.notice = notice;
    this.phase = "closed";
    keep(KEY, null);
    this.log?.end(notice);
    const channel = this.#channel;
    this.#channel = null;
    if (channel) connection.done(channel);
    this.changed();
  }

  leave(): void {
    const channel = this.#channel;
    this.#channel = null;
    this.phase = "form";
    this.notice = "";
    this.people = [];
    this.count = null;
    this.keywords = [];
    this.log?.end("");
    this.log = null;
    this.#typing.clear();
    keep(KEY, null);
    if (channel) connection.done(channel);
    this.changed();
  }

  #read({ event, payload, at, id: sent, from, seq }: Stored): Omit<Entry, "seq" | "n"> | null {
    return this.#entry(event, { ...payload, id: sent, seq, from: from ?? payload["from"], timestamp: at });
  }

  #came(log: Log, event: string, payload: Record<string, unknown>): void {
    const entry = this.#entry(event, payload);
    const from = payload["from"] as Record<string, unknown> | undefined;
    this.#typing.delete(String(from?.["user_id"] ?? ""));
    if (!entry) return;
    if (typeof payload["seq"] === "number") log.put(payload["seq"], entry);
    else log.say({ ...entry, to: "you" });
    this.changed();
  }

  #entry(event: string, payload: Record<string, unknown>): Omit<Entry, "seq" | "n"> | null {
    if (event === "room:state") return this.#note(payload);
    const from = (payload["from"] ?? {}) as Record<string, unknown>;
    const said = payload["body"] ?? payload["text"] ?? payload["message"];
    if (said === undefined && event.startsWith("phx_")) return null;
    const mine = from["session"] === this.#key;
    const at = payload["at"] ?? payload["timestamp"];
    const user = from["user_id"] ?? payload["user"];
    const sent = payload["id"];
    return {
      kind: "message",
      at: typeof at === "string" ? Date.parse(at) : Date.now(),
      from: user === undefined || user === null ? "The system" : nameOf(String(user)),
      mine,
      text: typeof said === "string" ? said : JSON.stringify(said ?? payload),
      ...(typeof sent === "string" && { id: sent }),
    };
  }

  #note(payload: Record<string, unknown>): Omit<Entry, "seq" | "n"> | null {
    const granted = payload["granted"] as { user_id: Id; rank: number } | undefined;
    const at = typeof payload["timestamp"] === "string" ? Date.parse(payload["timestamp"]) : Date.now();
    const text = granted ? `${nameOf(granted.user_id)} now has rank ${granted.rank}.`
      : payload["quiet"] ? "The room is quiet." : `The room is open for everybody${payload["title"] ? `: ${payload["title"]}` : ""}.`;
    return { kind: "note", at, from: "", mine: false, text };
  }

  #set(state: State): void {
    this.title = state.title ?? "";
    this.quiet = state.quiet;
    this.quietRank = state.quiet_rank;
  }

  #state(state: State & { seq?: number; granted?: { user_id: Id; rank: number } }): void {
    const { quiet, title } = this;
    this.#set(state);
    const { granted, seq } = state;
    if (granted && String(granted.user_id) === String(this.#me)) this.rank = granted.rank;
    const note = granted || quiet !== this.quiet ? this.#note({ ...state }) : null;
    if (note) seq ? this.log?.put(seq, note) : this.log?.say(note);
    else if (title !== this.title && this.title) this.log?.note(`The room is now called “${this.title}”.`);
    this.changed();
  }

  #sync(): void {
    const people: Person[] = [];
    this.#presence?.list((key: string, { metas }: { metas: { online_at?: string }[] }) => {
      const user = key.slice(0, key.lastIndexOf(":"));
      const since = Math.min(...metas.map((meta) => Number(meta.online_at ?? 0))) * 1_000;
      people.push({ key, user, name: nameOf(user), since, me: key === this.#key });
    });
    people.sort((a, b) => a.name.localeCompare(b.name) || a.since - b.since);
    this.people = people;
    this.changed();
  }

  #types(user: string): void {
    if (!user || user === String(this.#me)) return;
    this.#typing.set(user, Date.now() + TYPING_SHOWN_MS);
    setTimeout(() => this.changed(), TYPING_SHOWN_MS + 50);
    this.changed();
  }

  /** This tab's own, in presence. */
  get #key(): string {
    return `${this.#me}:${session()}`;
  }

  /** Who is writing just now. */
  get typing(): string[] {
    return [...this.#typing].filter(([, until]) => until > Date.now()).map(([user]) => nameOf(user));
  }

  get maySpeak(): boolean {
    return !this.quiet || this.rank >= this.quietRank;
  }

  get moderates(): boolean {
    return this.rank >= MODERATOR;
  }

  say(text: string, to: Person | null): void {
    this.#typed = 0;
    if (to) this.log?.send("new_msg", { to: [{ session: to.key }], body: text }, { text, to: to.name });
    else this.log?.send("new_msg", { broadcast: true, body: text }, { text });
  }

  /** Tells the others that something is being written; now and then. */
  write(): void {
    const now = Date.now();
    if (now - this.#typed < TYPING_MS || this.#channel?.state !== "joined" || !this.maySpeak) return;
    this.#typed = now;
    this.#channel.push("typing", {});
  }

  update(change: { title?: string; quiet?: boolean; quiet_rank?: number; for_seconds?: number }): void {
    this.#ask("room:update", change);
  }

  grant(person: Person, rank: number): void {
    this.#ask("room:grant", { user_id: person.user, rank });
  }

  #ask(event: string, payload: object): void {
    this.notice = "";
    const failed = (reason?: string, detail?: string) => {
      this.notice = words(reason, detail);
      this.changed();
    };
    this.#channel
      ?.push(event, payload)
      .receive("error", ({ reason, detail }) => failed(reason, detail))
      .receive("timeout", () => failed("unavailable"));
    this.changed();
  }
}

export const room = new Room();
