// A student: asks, waits, talks.

import type { Channel } from "phoenix";
import { Chat, type Ending } from "./chat";
import { connection } from "./connection";
import { complete, type Id, id, keep, kept } from "./identity";
import { Model } from "./model";
import { words } from "./words";

const KEY = "switchboard:student";

interface Kept {
  id: Id;
  question: string;
  chat: string | null;
}

interface Place {
  position: number;
  of: number;
  wait_seconds: number | null;
}

class Student extends Model {
  phase: "form" | "joining" | "waiting" | "chat" | "ended" = "form";
  question = "";
  place: Place | null = null;
  chat: Chat | null = null;
  ended: Ending | null = null;
  /** What went wrong, or what has just happened. */
  notice = "";
  #me: Id = "";
  #channel: Channel | null = null;

  /** Goes on where this tab was before a reload. */
  resume(): void {
    const was = kept<Kept>(KEY);
    if (!was) return;
    this.question = was.question;
    // Without a token there is no going on; what was asked stands in the form.
    if (!complete()) return keep(KEY, null);
    this.#me = was.id;
    this.phase = "joining";
    if (was.chat) this.#talk({ id: was.chat });
    this.#join();
  }

  ask(question: string): void {
    this.#me = id();
    this.question = question.trim();
    this.notice = "";
    this.ended = null;
    this.phase = "joining";
    this.#keep();
    this.#join();
    this.changed();
  }

  #keep(): void {
    keep(KEY, { id: this.#me, question: this.question, chat: this.chat?.id ?? null } satisfies Kept);
  }

  #join(): void {
    const me = this.#me;
    const channel = connection.channel(`presence:student:${me}`, () => ({ userId: me, role: "student" }));
    this.#channel = channel;
    channel.on("queue:position", (place: Place) => {
      this.place = place;
      this.phase = this.phase === "joining" ? "waiting" : this.phase;
      this.changed();
    });
    channel.on("new:chat", (chat) => this.#talk(chat));
    channel
      .join()
      .receive("ok", () => this.#ready())
      .receive("error", ({ reason }) => {
        if (reason !== "unavailable") this.#stop(words(reason));
      });
  }

  /** In the queue, or still there. Who is in a chat is told of it instead, and is not to wait for another one. */
  #ready(): void {
    if (this.phase !== "joining" && this.phase !== "waiting" || this.#channel?.state !== "joined") return;
    this.#channel
      ?.push("student:ready", { userId: this.#me })
      .receive("ok", () => {
        if (this.phase === "joining") this.phase = "waiting";
        this.changed();
      })
      .receive("error", ({ reason, retry_after_ms }) => {
        if (reason === "unavailable" || reason === "rate_limited") {
          setTimeout(() => this.#ready(), retry_after_ms ?? 1_000);
        } else this.#stop(words(reason));
      });
  }

  #talk(chat: ConstructorParameters<typeof Chat>[2]): void {
    if (this.phase === "ended" || this.phase === "form" || this.chat?.id === chat.id) return;
    this.chat?.drop();
    this.chat = new Chat("student", this.#me, chat, this.question);
    this.phase = "chat";
    this.place = null;
    this.notice = "";
    this.#keep();
    const talk = this.chat;
    talk.watch(() => {
      if (talk.ended && talk === this.chat) this.#over(talk.ended);
      else this.changed();
    });
    this.changed();
  }

  #over(ending: Ending): void {
    this.ended = ending;
    if (ending === "requeued") {
      // The queue has given the first place back already.
      this.notice = `${this.chat?.other || "The teacher"} is no longer there. You are at the front of the queue again.`;
      this.chat = null;
      this.phase = "waiting";
      this.#keep();
      this.#ready();
    } else {
      this.phase = "ended";
      this.#leave();
    }
    this.changed();
  }

  /** Out of the queue. */
  leave(): void {
    this.#stop("");
  }

  #stop(notice: string): void {
    this.notice = notice;
    this.phase = "form";
    this.chat = null;
    this.#leave();
    this.changed();
  }

  /** From what has ended, back to the form. */
  again(): void {
    this.question = "";
    this.chat = null;
    this.ended = null;
    this.#stop("");
  }

  #leave(): void {
    keep(KEY, null);
    this.place = null;
    if (this.#channel) connection.done(this.#channel);
    this.#channel = null;
  }
}

export const student = new Student();
