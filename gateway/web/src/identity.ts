// Who this tab is. Kept for the tab alone, so that two tabs are two people, and a reload is none.

const KEY = "switchboard:me";
const NAME_LENGTH_MAX = 60;

/** Of a user: tokens may have numbers. */
export type Id = string | number;

interface Me {
  name: string;
  /** The id, and the name that it was made of. */
  id: string;
  /** Of this tab in rooms. */
  session: string;
  /** Tokens of the user, and of rooms; only where the gateway wants some. */
  token: string;
  roomToken: string;
}

/** A random word of letters and digits. */
export function random(length: number): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(length)), (byte) => (byte % 36).toString(36)).join("");
}

/** What was kept under this key before the reload. */
export function kept<T>(key: string): T | null {
  try {
    return JSON.parse(sessionStorage.getItem(key) ?? "null") as T | null;
  } catch {
    return null;
  }
}

/** Keeps it over a reload; null forgets it. */
export function keep(key: string, value: unknown): void {
  try {
    if (value === null) sessionStorage.removeItem(key);
    else sessionStorage.setItem(key, JSON.stringify(value));
  } catch {
    // Storage is full, or not allowed: then a reload begins anew.
  }
}

const asked = (name: string) => document.querySelector<HTMLMetaElement>(`meta[name=${name}]`)?.content ?? "";

/** Whether the gateway verifies tokens. */
export const tokensNeeded = asked("switchboard-auth") === "jwt";
export const version = asked("switchboard-version");

const me: Me = { name: "", id: "", session: random(8), token: "", roomToken: "", ...kept<Partial<Me>>(KEY) };

/** The claims of a token, which the gateway verifies, and nobody here. */
function claims(token: string): Record<string, unknown> {
  try {
    const part = (token.split(".")[1] ?? "").replaceAll("-", "+").replaceAll("_", "/");
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(part), (char) => char.charCodeAt(0))));
  } catch {
    return {};
  }
}

export function name(): string {
  return me.name;
}

/** The id in topics and payloads. Who has begun something with one keeps it there, also if the name changes. */
export function id(): Id {
  const { sub } = claims(me.token);
  if (tokensNeeded && (typeof sub === "string" || typeof sub === "number")) return sub;
  return me.id;
}

export function session(): string {
  return me.session;
}

export function token(): string {
  return me.token;
}

export function roomToken(): string {
  return me.roomToken;
}

/** Whether there is all that a connection needs. */
export function complete(): boolean {
  return me.name !== "" && (!tokensNeeded || me.token !== "");
}

/** Another name is another person. Colons separate users and sessions in rooms, so that none is in an id. */
export function become(name: string, token = me.token): void {
  const tidy = name.replace(/\s+/g, " ").trim().slice(0, NAME_LENGTH_MAX);
  if (tidy !== me.name || !me.id) me.id = `${tidy.replaceAll(":", ".")}-${random(4)}`;
  me.name = tidy;
  me.token = token.trim();
  keep(KEY, me);
}

/** The name in an id that was made here; others as they stand. */
export function nameOf(id: Id): string {
  return String(id).replace(/(.)-[0-9a-z]{4}$/, "$1");
}

/** Takes tokens out of the address, where they would be seen and kept: `#/student?token=…&room_token=…`. */
export function takeTokens(): void {
  const [path, query] = location.hash.split("?", 2);
  if (!query) return;
  const said = new URLSearchParams(query);
  me.token = said.get("token") ?? me.token;
  me.roomToken = said.get("room_token") ?? me.roomToken;
  if (!me.name && me.token) become(String(claims(me.token)["name"] ?? claims(me.token)["sub"] ?? ""));
  keep(KEY, me);
  history.replaceState(null, "", path || "#/");
}
