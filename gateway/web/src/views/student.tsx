// The student's view: ask, wait, talk.

import { useState } from "preact/hooks";
import type { Chat } from "../chat";
import { useModels } from "../model";
import { Composer, Field, Lost, Messages, Notice, useRead, Who } from "../parts";
import { student } from "../student";
import { ordinal, span } from "../words";

export function Student() {
  useModels(student);
  switch (student.phase) {
    case "form": return <Ask />;
    case "joining":
    case "waiting": return <Waiting />;
    default: return student.chat ? <Talk chat={student.chat} /> : <Ask />;
  }
}

function Ask() {
  const [question, setQuestion] = useState(student.question);
  return (
    <Who title="Ask a question" action="Ask" notice={student.notice} onGo={() => student.ask(question)}
      text="Somebody who can answer it will talk with you here. Keep this page open while you wait.">
      <Field label="Your question" value={question} onValue={setQuestion} rows={4} max={2_000} />
    </Who>
  );
}

function Waiting() {
  const { place } = student;
  const seconds = place?.wait_seconds;
  return (
    <section class="card waiting" aria-labelledby="waiting">
      <h1 id="waiting">You are in the queue</h1>
      <Lost>Your place is kept for some seconds, and this page finds back to it by itself.</Lost>
      <div class="place" role="status">
        <p class="big">{place ? ordinal(place.position) : "…"}</p>
        <p>{place ? `of ${place.of} waiting` : "Finding your place"}</p>
        <p class="hint">{place ? (seconds === null || seconds === undefined ? "How long it takes is not known yet." : `About ${span(seconds)} to go.`) : " "}</p>
      </div>
      <figure class="asked">
        <figcaption>Your question</figcaption>
        <blockquote>{student.question}</blockquote>
      </figure>
      <Notice>{student.notice}</Notice>
      <button type="button" onClick={() => student.leave()}>Leave the queue</button>
    </section>
  );
}

function Talk({ chat }: { chat: Chat }) {
  useModels(chat);
  const over = student.phase === "ended";
  const other = chat.other || "your teacher";
  useRead(chat, true);
  return (
    <section class="pane alone" aria-label={`Chat with ${other}`}>
      <header>
        <h1>{other}</h1>
        <p class="hint" role="status">
          {over ? "The chat is over" : !chat.joined ? "Opening the chat…" : chat.ready ? "Both of you are here" : `${other} is coming…`}
        </p>
        {!over && (
          <button type="button" disabled={chat.ending} onClick={() => chat.end()}>{chat.ending ? "Ending…" : "End chat"}</button>
        )}
      </header>
      <Lost>What you write is kept, and sent once it is back.</Lost>
      <Messages log={chat.log} label="Messages" empty={<p>{chat.joined ? "Nothing was said yet." : "One moment…"}</p>} names />
      {over ? <Over chat={chat} /> : (
        <Composer key={chat.id} label={`Message to ${other}`} draft={`chat:${chat.id}`} log={chat.log} onSend={(text) => chat.say(text)} focus />
      )}
    </section>
  );
}

function Over({ chat }: { chat: Chat }) {
  const other = chat.other || "Your teacher";
  const how = { you: "You ended the chat.", they: `${other} ended the chat.`, gone: "The chat ended while you were away.", requeued: "" };
  return (
    <footer class="over">
      <p role="status">{how[student.ended ?? "gone"]}</p>
      <button type="button" class="primary" onClick={() => student.again()}>Ask again</button>
    </footer>
  );
}
