// A teacher: picks students up, and talks with several at once.

import type { Channel } from "phoenix";
import { Chat } from "./chat";
import { connection } from "./connection";
import { complete, type Id, id, keep, kept } from "./identity";
import { Model } from "./model";
import { words } from "./words";

const KEY = "switchboard:teacher";
/** So many chats stand side by side. The gateway's own limit may be lower. */
const CAPACITY = 5;
/** A claim is answered before its chat comes: so long, at most. */
const CHAT_COMES_MS = 3_000;
/** Feeds of other systems may be called otherwise, and then this is not shown. */
const LOBBY_FEED = "feed:lobby";

interface Kept {
  id: Id;
  auto: boolean;
  away: boolean;
  /** Those that go on, as they stand. */
  chats: string[];
  active: string | null;
}

interface Counts {
  teachers: { total: number };
  students: { total: number; waiting: number; chatting: number; finished: number };
}

class Teacher extends Model {
  phase: "form" | "joining" | "there" = "form";
  auto = true;
  away = false;
  chats: Chat[] = [];
  /** Whose chat has the keyboard. */
  active: Chat | null = null;
  counts: Counts | null = null;
  /** When the one who waits longest came. Milliseconds of the clock. */
  waitingSince: number | null = null;
  claiming = false;
  notice = "";
  #me: Id = "";
  #channel: Channel | null = null;
  #feed: Channel | null = null;

  resume(): void {
    const was = kept<Kept>(KEY);
    if (!was) return;
    if (!complete()) return keep(KEY, null);
    this.auto = was.auto;
    this.away = was.away;
    this.#begin(was.id);
    // The gateway would tell them, too, in another order.
    for (const id of was.chats) this.#talk({ id });
    this.active = this.chats.find(({ id }) => id === was.active) ?? this.active;
  }

  start(): void {
    this.#begin(id());
  }

  #begin(me: Id): void {
    this.#me = me;
    this.phase = "joining";
    this.notice = "";
    const channel = connection.channel("presence:teachers", () => ({
      userId: me, role: "teacher", capacity: CAPACITY, auto: this.auto && !this.away,
    }));
    this.#channel = channel;
    channel.on("user:status", (counts: Counts) => this.#count(counts));
    channel.on(`new:chat:${me}`, (chat) => this.#talk(chat));
    channel
      .join()
      .receive("ok", (counts: Counts) => {
        this.phase = "there";
        if (this.away) this.#update({ away: true });
        if (counts.students) this.#count(counts);
        this.changed();
      })
      .receive("error", ({ reason, detail }) => {
        if (reason !== "unavailable") this.#stop(words(reason, detail));
      });
    this.#watchLobby();
    this.changed();
  }

  #watchLobby(): void {
    const feed = connection.channel(LOBBY_FEED, () => ({}));
    const show = ({ value }: { value: { waiting_since?: string | null } | null }) => {
      this.waitingSince = value?.waiting_since ? Date.parse(value.waiting_since) : null;
      this.changed();
    };
    feed.on("update", show);
    feed.join().receive("ok", show).receive("error", ({ reason }) => {
      if (reason === "unavailable" || this.#feed !== feed) return;
      this.#feed = null;
      connection.done(feed);
    });
    this.#feed = feed;
  }

  #keep(): void {
    const chats = this.chats.filter(({ ended }) => !ended).map(({ id }) => id);
    keep(KEY, { id: this.#me, auto: this.auto, away: this.away, chats, active: this.active?.id ?? null } satisfies Kept);
  }

  override changed(): void {
    if (this.phase !== "form") this.#keep();
    super.changed();
  }

  #count(counts: Counts): void {
    this.counts = counts;
    if (!counts.students.waiting) this.waitingSince = null;
    this.changed();
  }

  #talk(record: ConstructorParameters<typeof Chat>[2]): void {
    if (this.chats.some((chat) => chat.id === record.id && !chat.ended)) return;
    const chat = new Chat("teacher", this.#me, record);
    this.chats = [...this.chats.filter((other) => other.id !== chat.id), chat];
    this.claiming = false;
    this.notice = "";
    if (!this.active || this.active.ended) this.active = chat;
    // That another one has ended may be heard later than that this one has begun.
    chat.watch(() => {
      if (chat.ended === "gone" && !chat.joined) return this.close(chat);
      this.#makeRoom();
      this.changed();
    });
    this.#makeRoom();
    this.changed();
  }

  /** What has ended goes where there are too many. */
  #makeRoom(): void {
    while (this.chats.length > CAPACITY) {
      const over = this.chats.findIndex((chat) => chat.ended);
      if (over < 0) break;
      this.chats = this.chats.filter((_, at) => at !== over);
    }
    if (this.active && !this.chats.includes(this.active)) this.active = this.chats.at(-1) ?? null;
  }

  get open(): number {
    return this.chats.filter((chat) => !chat.ended).length;
  }

  get unread(): number {
    return this.chats.reduce((sum, chat) => sum + chat.unread, 0);
  }

  get mayClaim(): boolean {
    return this.phase === "there" && !this.claiming && this.open < CAPACITY && (this.counts?.students.waiting ?? 0) > 0;
  }

  next(): void {
    if (!this.mayClaim) return;
    this.claiming = true;
    const over = (notice: string) => {
      if (!this.claiming) return;
      this.claiming = false;
      this.notice = notice;
      this.changed();
    };
    this.#channel
      ?.push("claim:student", { teacherId: this.#me })
      .receive("ok", () => setTimeout(() => over("Another teacher was faster: nobody waits."), CHAT_COMES_MS))
      .receive("error", ({ reason }) => over(words(reason)))
      .receive("timeout", () => over(words("unavailable")));
    this.changed();
  }

  setAuto(auto: boolean): void {
    this.auto = auto;
    this.#update({ auto });
  }

  setAway(away: boolean): void {
    this.away = away;
    this.#update({ away, ...(!away && { auto: this.auto }) });
  }

  #update(settings: object): void {
    this.#channel?.push("teacher:update", settings).receive("error", ({ reason }) => {
      this.notice = words(reason);
      this.changed();
    });
    this.changed();
  }

  show(chat: Chat): void {
    this.active = chat;
    this.changed();
  }

  /** Takes a chat that has ended off the table. */
  close(chat: Chat): void {
    const at = this.chats.indexOf(chat);
    this.chats = this.chats.filter((other) => other !== chat);
    if (this.active === chat) this.active = this.chats[Math.min(at, this.chats.length - 1)] ?? null;
    this.changed();
  }

  /** Goes home: chats that are left go to other teachers. */
  stop(): void {
    this.#stop("");
  }

  #stop(notice: string): void {
    keep(KEY, null);
    this.phase = "form";
    this.notice = notice;
    this.counts = null;
    this.claiming = false;
    for (const channel of [this.#channel, this.#feed]) if (channel) connection.done(channel);
    this.#channel = null;
    this.#feed = null;
    for (const chat of this.chats) chat.drop();
    this.chats = [];
    this.active = null;
    this.changed();
  }
}

export const teacher = new Teacher();
