// What an operator sees: one feed, which the system fills once for all who look.

import type { Channel } from "phoenix";
import { connection } from "./connection";
import { type Id, keep, kept } from "./identity";
import { Model } from "./model";
import { words } from "./words";

const KEY = "switchboard:operator";
const FEED = "feed:operator";
/** Points of a chart: at one value a second, three minutes. */
const POINTS_MAX = 180;

export interface GatewaySeen {
  name: string;
  version: string;
  connections: number;
  draining: boolean | null;
  since: string;
  /** Since its start; null, if it did not answer. */
  joins: number | null;
  messages: number | null;
}

export interface Seen {
  at: string;
  matcher: { leader: string | null; epoch: number | null; since: string | null; standbys: string[] } | null;
  lobby: { teachers: number; waiting: number; chatting: number; finished: number } | null;
  queue: { first: { student: Id; since: string }[]; left_out: number } | null;
  chats: { newest: { id: string; teacher: Id; student: Id; since: string }[]; left_out: number } | null;
  gateways: { all: GatewaySeen[]; left_out: number } | null;
  histories: string[] | null;
  feeds: { all: { name: string; owner: string; polls: number; failed: number; stale: { since: string; reason: string } | null }[]; left_out: number } | null;
}

export interface Point {
  at: number;
  connections: number;
  messages: number;
  joins: number;
}

class Operator extends Model {
  phase: "form" | "joining" | "there" | "missing" = "form";
  seen: Seen | null = null;
  points: Point[] = [];
  /** Since when the source does not answer, and why. */
  stale: { since: string; reason: string } | null = null;
  notice = "";
  #secret = "";
  #channel: Channel | null = null;

  resume(): void {
    const secret = kept<string>(KEY);
    if (secret) this.look(secret);
  }

  look(secret: string): void {
    this.#secret = secret;
    this.phase = "joining";
    this.notice = "";
    const channel = connection.channel(FEED, () => ({ secret: this.#secret }));
    this.#channel = channel;
    channel.on("update", ({ value }) => this.#show(value));
    channel.on("stale", (stale) => {
      this.stale = stale;
      this.changed();
    });
    channel
      .join()
      .receive("ok", ({ value }: { value: Seen | null }) => {
        keep(KEY, secret);
        this.phase = "there";
        if (value) this.#show(value);
        this.changed();
      })
      .receive("error", ({ reason }) => {
        if (reason === "unavailable") return;
        this.#end(reason === "not_found" ? "missing" : "form", reason === "unauthorized" ? "This is not the secret." : words(reason));
      });
    this.changed();
  }

  #show(seen: Seen): void {
    const before = this.seen;
    this.seen = seen;
    this.stale = null;
    const all = seen.gateways?.all ?? [];
    const seconds = before ? (Date.parse(seen.at) - Date.parse(before.at)) / 1_000 : 0;
    // Of gateways that were there before: a new one begins with what it did while nobody looked.
    const rate = (what: "joins" | "messages") =>
      all.reduce((sum, gateway) => {
        const then = before?.gateways?.all.find(({ name }) => name === gateway.name)?.[what];
        return sum + Math.max(0, (gateway[what] ?? 0) - (then ?? gateway[what] ?? 0));
      }, 0) / seconds;
    if (seconds > 0) {
      const connections = all.reduce((sum, gateway) => sum + gateway.connections, 0);
      this.points = [...this.points, { at: Date.parse(seen.at), connections, messages: rate("messages"), joins: rate("joins") }].slice(-POINTS_MAX);
    }
    this.changed();
  }

  leave(): void {
    this.#end("form", "");
  }

  #end(phase: "form" | "missing", notice: string): void {
    keep(KEY, null);
    this.phase = phase;
    this.notice = notice;
    this.seen = null;
    this.points = [];
    this.stale = null;
    if (this.#channel) connection.done(this.#channel);
    this.#channel = null;
    this.changed();
  }
}

export const operator = new Operator();
