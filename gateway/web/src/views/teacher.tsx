// The teacher's view: the queue, and up to five chats side by side.

import { useEffect } from "preact/hooks";
import type { Chat } from "../chat";
import { useModels } from "../model";
import { Composer, Lost, Messages, Notice, useRead, Who } from "../parts";
import { teacher } from "../teacher";
import { count, span } from "../words";
import { useNow } from "../now";

export function Teacher() {
  useModels(teacher);
  useKeys();
  if (teacher.phase === "form") {
    return (
      <Who title="Answer questions" action="Start" notice={teacher.notice} onGo={() => teacher.start()}
        text="Students who wait are given to you one after the other, up to five at a time.">
        <label class="check">
          <input type="checkbox" checked={teacher.auto} onChange={(event) => { teacher.auto = event.currentTarget.checked; teacher.changed(); }} />
          Give me students as they come
        </label>
      </Who>
    );
  }
  return (
    <div class="desk">
      <h1 class="unseen">Your chats</h1>
      <Desk />
      <Lost>Your chats are kept for some seconds, and this page finds back to them by itself.</Lost>
      {teacher.chats.length > 0 && <Tabs />}
      {teacher.chats.length > 0
        ? <div class="panes">{teacher.chats.map((chat, at) => <Pane key={chat.id} chat={chat} at={at} />)}</div>
        : <Nobody />}
    </div>
  );
}

function Desk() {
  const now = useNow();
  const { counts, waitingSince } = teacher;
  const waiting = counts?.students.waiting ?? 0;
  return (
    <section class="toolbar" aria-label="The queue">
      <dl class="facts">
        <div><dt>Waiting</dt><dd data-fact="waiting">{counts ? waiting : "–"}</dd></div>
        <div><dt>Longest wait</dt><dd>{waiting && waitingSince ? span((now - waitingSince) / 1_000) : "–"}</dd></div>
        <div><dt>Your chats</dt><dd>{teacher.open} of 5</dd></div>
      </dl>
      <div class="actions">
        <button type="button" class="primary" disabled={!teacher.mayClaim} aria-keyshortcuts="Alt+N" onClick={() => teacher.next()}>
          {teacher.claiming ? "Coming…" : "Next student"}
        </button>
        <label class="check">
          <input type="checkbox" checked={teacher.auto} disabled={teacher.away} onChange={(event) => teacher.setAuto(event.currentTarget.checked)} />
          Automatic
        </label>
        <label class="check">
          <input type="checkbox" checked={teacher.away} onChange={(event) => teacher.setAway(event.currentTarget.checked)} />
          Away
        </label>
        <button type="button" onClick={() => {
          if (!teacher.open || confirm(`${count(teacher.open, "student")} will go to other teachers. Stop?`)) teacher.stop();
        }}>Stop</button>
      </div>
      <Notice>{teacher.notice}</Notice>
    </section>
  );
}

function Nobody() {
  return (
    <div class="empty nobody">
      <h2>{teacher.away ? "You are away" : "No chats"}</h2>
      <p>
        {teacher.phase === "joining" ? "One moment…"
          : teacher.away ? "No students come while you are. Untick Away to go on."
          : teacher.auto ? "The next student who asks comes to you by itself."
          : "Press Next student once somebody waits."}
      </p>
      <p class="hint keys">
        Keys: <kbd>Alt</kbd> <kbd>N</kbd> next student, <kbd>Alt</kbd> <kbd>1</kbd> to <kbd>5</kbd> go to a chat, <kbd>Alt</kbd> <kbd>E</kbd> end it,
        or close it when it is over.
      </p>
    </div>
  );
}

/** Where there is no room for several: one is shown, and the others are a touch away. */
function Tabs() {
  return (
    <nav class="tabs" aria-label="Chats">
      {teacher.chats.map((chat) => (
        <button type="button" key={chat.id} aria-current={chat === teacher.active} onClick={() => teacher.show(chat)}>
          {chat.other || "…"}
          {chat.unread > 0 && <span class="badge">{chat.unread}<span class="unseen"> unread</span></span>}
        </button>
      ))}
    </nav>
  );
}

function Pane({ chat, at }: { chat: Chat; at: number }) {
  useModels(chat);
  const active = chat === teacher.active;
  const other = chat.other || "A student";
  useRead(chat, active);
  const how = { you: "You ended the chat.", they: `${other} ended the chat, or has gone.`, requeued: `${other} went to another teacher.`, gone: "The chat is over." };
  return (
    <section class={`pane ${active ? "active" : ""}`} aria-label={`Chat with ${other}`} onPointerDown={() => active || teacher.show(chat)}>
      <header>
        <h2>{other} {chat.unread > 0 && <span class="badge">{chat.unread}<span class="unseen"> unread</span></span>}</h2>
        <p class="hint" role="status">{chat.ended ? "Over" : !chat.joined ? "Opening…" : chat.ready ? "Here" : "Coming…"}</p>
        {chat.ended
          ? <button type="button" onClick={() => teacher.close(chat)}>Close</button>
          : <button type="button" disabled={chat.ending} onClick={() => chat.end()}>{chat.ending ? "Ending…" : "End chat"}</button>}
      </header>
      <Messages log={chat.log} label={`Messages with ${other}`} empty={<p>{chat.joined ? "Nothing was said yet." : "One moment…"}</p>} />
      {chat.ended
        ? <footer class="over"><p role="status">{how[chat.ended]}</p></footer>
        : <Composer label={`Message to ${other}`} draft={`chat:${chat.id}`} log={chat.log} focus={active}
            onSend={(text) => chat.say(text)} onFocus={() => teacher.show(chat)} />}
      <span class="unseen">Alt {at + 1}</span>
    </section>
  );
}

function useKeys(): void {
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      if (!event.altKey || event.ctrlKey || event.metaKey || teacher.phase !== "there") return;
      const { active, chats } = teacher;
      const digit = /^Digit([1-5])$/.exec(event.code)?.[1];
      if (digit) {
        const chat = chats[Number(digit) - 1];
        if (chat) teacher.show(chat);
      } else if (event.code === "KeyN") teacher.next();
      else if (event.code === "KeyE" && active) active.ended ? teacher.close(active) : active.end();
      else return;
      event.preventDefault();
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, []);
}
