// The gateway's reasons in words for people, and numbers and times as they read them.

const REASONS: Record<string, string> = {
  unauthorized: "You may not do this here.",
  token_expired: "Your access has expired.",
  invalid_payload: "The gateway did not understand this.",
  payload_too_large: "This is too long.",
  rate_limited: "Too fast. Wait a moment.",
  quiet: "The room is quiet: only some may speak now.",
  forbidden: "You may not do this.",
  not_found: "This is no longer there.",
  chat_finished: "The chat had ended before this came.",
  queue_full: "The queue is full. Try again in some minutes.",
  unavailable: "The service does not answer just now.",
  "too many channels joined": "Too much is open in this tab.",
};

export function words(reason: string | undefined, detail?: string): string {
  return `${REASONS[reason ?? ""] ?? `It was refused: ${reason ?? "no reason was given"}.`}${detail ? ` (${detail})` : ""}`;
}

const ordinals = new Intl.PluralRules("en", { type: "ordinal" });
const ENDINGS: Record<string, string> = { one: "st", two: "nd", few: "rd", other: "th" };

/** 1st, 2nd … */
export function ordinal(n: number): string {
  return `${n}${ENDINGS[ordinals.select(n)] ?? "th"}`;
}

/** "1 student", "2 students". */
export function count(n: number, one: string, many = `${one}s`): string {
  return `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
}

/** A span of time, as people say it. */
export function span(seconds: number): string {
  if (seconds < 60) return count(Math.max(0, Math.round(seconds)), "second");
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? count(minutes, "minute") : `${count(Math.round(minutes / 60), "hour")}`;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const whole = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

/** The time in the reader's zone; with the day, if that is another one. */
export function time(at: number): string {
  return new Date(at).toDateString() === new Date().toDateString() ? clock.format(at) : day.format(at);
}

export function wholeTime(at: number): string {
  return whole.format(at);
}
