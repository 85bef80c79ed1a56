// The one socket of this tab, and what is said of it.

import { type Channel, Socket } from "phoenix";
import Clock from "./clock?worker";
import { token, tokensNeeded } from "./identity";
import { Model } from "./model";

export type State = "closed" | "connecting" | "open" | "lost" | "refused";

const HEARTBEAT_MS = 5_000;
/** Reconnecting goes on for ever, at most this far apart: a place in the queue is kept for some seconds only. */
const RECONNECT_MS_MAX = 2_000;
/** After so many failures in a row the gateway is asked over HTTP whether it is there. */
const FAILURES = 3;

class Connection extends Model {
  state: State = "closed";
  /** Since when it is lost. Milliseconds of the clock. */
  since = 0;
  #socket: Socket | null = null;
  #token = "";
  #users = 0;
  #failures = 0;
  #beaten = 0;

  constructor() {
    super();
    new Clock().onmessage = () => this.#tick();
    addEventListener("online", () => (this.#socket?.isConnected() ? this.#become("open") : this.#again()));
    addEventListener("offline", () => this.#lost());
  }

  /** A channel of the socket, which is opened with the first one. `done` gives it back. */
  channel(topic: string, params: () => object): Channel {
    if (!this.#users && this.#socket && this.#token !== token()) this.reset();
    this.#users += 1;
    this.#socket ??= this.#open();
    return this.#socket.channel(topic, params);
  }

  /** The channel is not used any more; the last one closes the socket. */
  done(channel: Channel): void {
    channel.leave();
    this.#users -= 1;
    if (this.#users > 0) return;
    // Its leave goes out first.
    const socket = this.#socket;
    setTimeout(() => {
      if (this.#users > 0 || this.#socket !== socket) return;
      socket?.disconnect();
      this.#socket = null;
      this.#become("closed");
    }, 300);
  }

  /** Connects anew at once: somebody asks for it. */
  retry(): void {
    this.#failures = 0;
    this.#become("connecting");
    this.#again();
  }

  #open(): Socket {
    const address = new URL("socket", document.baseURI);
    address.protocol = address.protocol.replace("http", "ws");
    address.hash = "";
    this.#token = token();
    const socket = new Socket(address.href, {
      ...(this.#token && { authToken: this.#token }),
      heartbeatIntervalMs: HEARTBEAT_MS,
      reconnectAfterMs: (tries) => Math.min(100 * 2 ** tries, RECONNECT_MS_MAX) * (0.5 + Math.random() / 2),
      rejoinAfterMs: (tries) => [500, 1_000, 2_000][tries - 1] ?? 5_000,
    });
    socket.onOpen(() => {
      this.#failures = 0;
      this.#become("open");
    });
    socket.onClose(() => this.#lost());
    socket.onError(() => this.#lost());
    this.#become("connecting");
    socket.connect();
    return socket;
  }

  #become(state: State): void {
    if (state === "lost" && this.state !== "lost") this.since = Date.now();
    if (state === this.state) return;
    this.state = state;
    this.changed();
  }

  #lost(): void {
    if (!this.#socket || this.#socket.isConnected() && navigator.onLine) return;
    this.#failures += 1;
    if (this.state !== "refused") this.#become("lost");
    if (tokensNeeded && this.#failures === FAILURES) void this.#ask();
  }

  /** A refused handshake looks to a page as nobody there. If somebody is there, the token does not count. */
  async #ask(): Promise<void> {
    try {
      const answer = await fetch(document.baseURI, { headers: { accept: "application/json" } });
      if (!answer.ok || this.state === "open") return;
      this.#become("refused");
      this.#socket?.disconnect();
    } catch {
      // Nobody there.
    }
  }

  /** Heartbeats, and the way back while nobody sees the page: phoenix.js waits until somebody does. */
  #tick(): void {
    if (!this.#socket || !document.hidden || this.state === "refused") return;
    if (!this.#socket.isConnected()) this.#again();
    else if (Date.now() - this.#beaten > HEARTBEAT_MS) {
      this.#beaten = Date.now();
      this.#socket.push({ topic: "phoenix", event: "heartbeat", payload: {}, ref: "clock" });
    }
  }

  #again(): void {
    const socket = this.#socket;
    if (!socket || socket.isConnected() || socket.connectionState() === "connecting") return;
    socket.disconnect(() => socket.connect());
  }

  /** Forgets the socket, for whoever comes with another token. */
  reset(): void {
    this.#socket?.disconnect();
    this.#socket = null;
    this.#failures = 0;
    this.#become("closed");
  }
}

export const connection = new Connection();
