// What several views are made of.

import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Chat } from "./chat";
import { connection } from "./connection";
import { become, complete, keep, kept, name, token, tokensNeeded } from "./identity";
import type { Entry, Log, Outgoing } from "./log";
import { useModels } from "./model";
import { time, wholeTime } from "./words";

/** A message that is longer would not fit into a payload with all its characters escaped. */
const TEXT_LENGTH_MAX = 5_000;
/** This near to an end counts as there. Pixels. */
const NEAR = 80;

export function Time({ at }: { at: number }) {
  if (!at) return null;
  return <time dateTime={new Date(at).toISOString()} title={wholeTime(at)}>{time(at)}</time>;
}

/** One line of the system's own words; its place is there before them, so that nothing jumps. */
export function Notice({ children }: { children: ComponentChildren }) {
  return <p class="notice" role="status">{children}</p>;
}

/** What is going on with the connection, while it is not as it should be. */
export function Connection() {
  useModels(connection);
  const { state } = connection;
  const text = { closed: "", open: "Connected", connecting: "Connecting…", lost: "Connection lost", refused: "Access refused" }[state];
  return (
    <div class={`connection ${state}`} role="status">
      <span class="dot" aria-hidden="true" />
      <span>{text}</span>
    </div>
  );
}

/** Says what a lost connection means here, and what can be done. */
export function Lost({ children }: { children: ComponentChildren }) {
  useModels(connection);
  if (connection.state === "refused") {
    return (
      <div class="banner bad" role="alert">
        <p>The gateway is there, and does not let you in: the access token is wrong, or has expired.</p>
        <button type="button" onClick={() => connection.retry()}>Try again</button>
        <button type="button" onClick={() => { become(name(), ""); location.reload(); }}>Use another token</button>
      </div>
    );
  }
  if (connection.state !== "lost") return null;
  return (
    <div class="banner" role="alert">
      <p>{navigator.onLine ? "The connection is lost. Connecting again…" : "You are offline."} {children}</p>
      <button type="button" onClick={() => connection.retry()}>Try now</button>
    </div>
  );
}

interface FieldProps {
  label: string;
  value: string;
  onValue: (value: string) => void;
  hint?: string;
  secret?: boolean;
  max?: number;
  focus?: boolean;
  rows?: number;
  required?: boolean;
  autocomplete?: "off" | "nickname" | "current-password";
  invalid?: string;
}

/** A labelled field; Enter sends its form, also from one of several lines. */
export function Field({ label, value, onValue, hint, secret, max = 200, focus, rows, required = true, autocomplete = "off", invalid }: FieldProps) {
  const ref = useRef<HTMLInputElement & HTMLTextAreaElement>(null);
  const id = `field-${label.toLowerCase().replace(/\W+/g, "-")}`;
  useEffect(() => {
    if (focus) ref.current?.focus();
  }, []);
  const common = {
    id, ref, value, required, autocomplete, maxLength: max,
    "aria-describedby": hint ? `${id}-hint` : undefined,
    "aria-invalid": invalid ? true : undefined,
    onInput: (event: Event) => onValue((event.target as HTMLInputElement).value),
  };
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {rows ? <textarea {...common} rows={rows} onKeyDown={sendOnEnter} /> : secret ? <input {...common} type="password" /> : <input {...common} type="text" />}
      {hint && <p class="hint" id={`${id}-hint`}>{hint}</p>}
    </div>
  );
}

function sendOnEnter(event: KeyboardEvent): void {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  (event.target as HTMLTextAreaElement).form?.requestSubmit();
}

interface WhoProps {
  title: string;
  text: string;
  action: string;
  notice: string;
  onGo: () => void;
  children?: ComponentChildren;
  /** The name has the keyboard first, unless it is known. */
  nameLabel?: string;
}

/** Who begins something says who they are. */
export function Who({ title, text, action, notice, onGo, children, nameLabel = "Your name" }: WhoProps) {
  const [draft, setDraft] = useState(name());
  const [secret, setSecret] = useState(token());
  const go = (event: Event) => {
    event.preventDefault();
    become(draft, secret);
    if (complete()) onGo();
  };
  return (
    <form class="card" onSubmit={go}>
      <h1>{title}</h1>
      <p class="lead">{text}</p>
      <Field label={nameLabel} value={draft} onValue={setDraft} max={60} focus={!name()} autocomplete="nickname" />
      {tokensNeeded && (
        <Field label="Access token" value={secret} onValue={setSecret} secret max={8_000}
          hint="A JSON Web Token of whoever runs this. A link may bring it: #/student?token=…" />
      )}
      {children}
      <button class="primary" type="submit">{action}</button>
      <Notice>{notice}</Notice>
    </form>
  );
}

/** What comes is read by whoever has it before them: not in another tab, nor behind another view. */
export function useRead(chat: Chat, shown: boolean): void {
  useEffect(() => {
    if (!shown) return;
    const look = () => document.hidden || chat.read();
    look();
    document.addEventListener("visibilitychange", look);
    const end = chat.watch(look);
    return () => {
      document.removeEventListener("visibilitychange", look);
      end();
    };
  }, [chat, shown]);
}

function Message({ entry, names }: { entry: Entry; names: boolean }) {
  if (entry.kind !== "message") return <li class={entry.kind}><span>{entry.text}</span> <Time at={entry.at} /></li>;
  return (
    <li class={entry.mine ? "mine" : "theirs"}>
      <div class="head">
        {names && !entry.mine && <span class="from">{entry.from}</span>}
        {entry.to && <span class="direct">{entry.mine ? `only to ${entry.to}` : "only to you"}</span>}
        <Time at={entry.at} />
        {entry.mine && <span class="state" title="Stored">✓<span class="unseen">stored</span></span>}
      </div>
      <p class="text">{entry.text}</p>
    </li>
  );
}

function Unsent({ out, log }: { out: Outgoing; log: Log }) {
  const refused = out.state === "refused";
  return (
    <li class={`mine ${refused ? "refused" : "unsent"}`}>
      <div class="head">
        {out.entry.to && <span class="direct">only to {out.entry.to}</span>}
        <span class="state">{refused ? "Not sent" : out.state === "sent" ? "Sent…" : "Waiting to be sent"}</span>
      </div>
      <p class="text">{out.entry.text}</p>
      {refused && (
        <p class="why">
          {out.why}{" "}
          <button type="button" class="link" onClick={() => log.again(out)}>Send again</button>{" "}
          <button type="button" class="link" onClick={() => log.again(out, true)}>Remove</button>
        </p>
      )}
    </li>
  );
}

interface MessagesProps {
  log: Log;
  label: string;
  empty: ComponentChildren;
  names?: boolean;
  children?: ComponentChildren;
}

/** A log, at its end unless somebody scrolls up; there it gets older ones. */
export function Messages({ log, label, empty, names = false, children }: MessagesProps) {
  useModels(log);
  const box = useRef<HTMLDivElement>(null);
  const was = useRef({ atEnd: true, height: 0, top: 0, first: 0 });
  const [atEnd, setAtEnd] = useState(true);
  const first = log.entries.find((entry) => entry.n === 0)?.seq ?? 0;

  useLayoutEffect(() => {
    const at = box.current;
    if (!at) return;
    if (was.current.atEnd) at.scrollTop = at.scrollHeight;
    // What came above moves what is being read down, and the reader with it.
    else if (first < was.current.first) at.scrollTop = was.current.top + at.scrollHeight - was.current.height;
    was.current = { ...was.current, height: at.scrollHeight, top: at.scrollTop, first };
  });
  useEffect(() => {
    const at = box.current;
    if (!at) return;
    const observer = new ResizeObserver(() => {
      if (was.current.atEnd) at.scrollTop = at.scrollHeight;
    });
    observer.observe(at);
    return () => observer.disconnect();
  }, []);

  const scrolled = () => {
    const at = box.current;
    if (!at) return;
    const end = at.scrollHeight - at.scrollTop - at.clientHeight < NEAR;
    was.current = { ...was.current, atEnd: end, height: at.scrollHeight, top: at.scrollTop };
    setAtEnd(end);
    if (at.scrollTop < NEAR && !end) log.older();
  };
  const nothing = !log.entries.length && !log.outbox.length;
  return (
    <div class="messages">
      <div class="scroll" ref={box} onScroll={scrolled} tabIndex={0} role="log" aria-label={label}>
        {log.fetching && <p class="hint">Fetching older messages…</p>}
        {!log.fetching && !log.complete && first > 0 && log.entries.length >= 50 && (
          <button type="button" class="link older" onClick={() => log.older()}>Older messages</button>
        )}
        {nothing && <div class="empty">{empty}</div>}
        <ol>
          {log.entries.map((entry) => <Message key={`${entry.seq}.${entry.n}`} entry={entry} names={names} />)}
          {log.outbox.map((out) => <Unsent key={out.entry.id ?? ""} out={out} log={log} />)}
        </ol>
        {children}
      </div>
      {!atEnd && (
        <button type="button" class="newest" onClick={() => { if (box.current) box.current.scrollTop = box.current.scrollHeight; }}>
          To the newest ↓
        </button>
      )}
    </div>
  );
}

interface ComposerProps {
  label: string;
  /** Where a draft survives a reload. */
  draft: string;
  log: Log;
  onSend: (text: string) => void;
  onType?: () => void;
  /** Why nothing can be sent. */
  closed?: string;
  focus?: boolean;
  onFocus?: () => void;
}

export function Composer({ label, draft, log, onSend, onType, closed, focus, onFocus }: ComposerProps) {
  useModels(log);
  const key = `switchboard:draft:${draft}`;
  const [text, setText] = useState(() => kept<string>(key) ?? "");
  const field = useRef<HTMLTextAreaElement>(null);
  const id = `composer-${draft.replace(/\W+/g, "-")}`;
  useEffect(() => {
    if (focus) field.current?.focus();
  }, [focus]);
  const write = (text: string) => {
    setText(text);
    keep(key, text || null);
  };
  const why = closed || (log.full ? "Wait until what you wrote is sent." : "");
  const send = (event: Event) => {
    event.preventDefault();
    if (!text.trim() || why) return;
    onSend(text.trim());
    write("");
    field.current?.focus();
  };
  return (
    <form class="composer" onSubmit={send}>
      <label class="unseen" for={id}>{label}</label>
      <textarea
        id={id} ref={field} rows={1} value={text} maxLength={TEXT_LENGTH_MAX} placeholder={why || label}
        readOnly={!!closed} aria-describedby={why ? `${id}-why` : undefined} onKeyDown={sendOnEnter}
        onFocus={() => onFocus?.()}
        onInput={(event) => {
          write(event.currentTarget.value);
          if (event.currentTarget.value) onType?.();
        }}
      />
      <button type="submit" class="primary" disabled={!!why}>Send</button>
      {why && <span class="unseen" id={`${id}-why`}>{why}</span>}
    </form>
  );
}
