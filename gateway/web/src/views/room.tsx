// The room's view: what is said, who is there, and what a moderator may do.

import { useState } from "preact/hooks";
import { tokensNeeded } from "../identity";
import { useModels } from "../model";
import { Composer, Field, Lost, Messages, Notice, Who } from "../parts";
import { MODERATOR, type Person, VIP, room } from "../room";
import { count, wholeTime } from "../words";
import { useNow } from "../now";

const ID_LENGTH_MAX = 100;

export function Room({ id }: { id: string }) {
  useModels(room);
  if (room.phase === "form" || (id && id !== room.room)) return <Enter id={id} />;
  return <Inside />;
}

function Enter({ id }: { id: string }) {
  const [name, setName] = useState(id || room.room || "lounge");
  const [rank, setRank] = useState("10");
  const enter = () => {
    const tidy = name.trim().replaceAll(":", ".");
    if (!tidy) return;
    history.replaceState(null, "", `#/room/${encodeURIComponent(tidy)}`);
    room.join(tidy, Number(rank));
  };
  return (
    <Who title="Join a room" action="Join" notice={room.notice} onGo={enter} text="Many talk in a room, and everybody sees who is there.">
      <Field label="Room" value={name} onValue={setName} max={ID_LENGTH_MAX} />
      {!tokensNeeded && (
        <div class="field">
          <label for="rank">As</label>
          <select id="rank" value={rank} onChange={(event) => setRank(event.currentTarget.value)}>
            <option value="0">Visitor</option>
            <option value="10">Member</option>
            <option value="50">VIP, who may speak while it is quiet</option>
            <option value="100">Moderator</option>
          </select>
        </div>
      )}
    </Who>
  );
}

function Inside() {
  const [to, setTo] = useState<Person | null>(null);
  const [list, setList] = useState(false);
  const { log, phase, typing } = room;
  if (!log) return null;
  const there = to && room.people.some(({ key }) => key === to.key);
  const closed = phase === "closed" ? "You are no longer in this room." : to || room.maySpeak ? "" : "The room is quiet: only some may speak now.";
  const present = room.count ?? room.people.length;
  return (
    <div class={`room ${list ? "listing" : ""}`}>
      <section class="pane" aria-label={`Room ${room.room}`}>
        <header>
          <h1>{room.title || room.room}</h1>
          <p class="hint">{room.title && room.title !== room.room ? `${room.room} · ` : ""}{phase === "joining" ? "Joining…" : room.quiet ? "Quiet" : "Open"}</p>
          <button type="button" class="people-button" aria-expanded={list} aria-controls="people" onClick={() => setList(!list)}>
            {count(present, "person", "people")}
          </button>
          <button type="button" onClick={() => { room.leave(); setTo(null); }}>Leave</button>
        </header>
        {room.keywords.length > 0 && <Keywords />}
        <Lost>What you write is kept, and sent once it is back; what others say meanwhile comes then.</Lost>
        <Messages log={log} label="Messages" names empty={<p>{phase === "joining" ? "One moment…" : "Nothing was said yet. Say hello."}</p>} />
        <p class="typing" role="status">{typing.length ? `${typing.slice(0, 3).join(", ")}${typing.length > 3 ? " and others" : ""} ${typing.length === 1 ? "is" : "are"} writing…` : " "}</p>
        {to && (
          <p class="to">
            <span>Only to <strong>{to.name}</strong>{there ? "" : ", who has left"}</span>
            <button type="button" class="link" onClick={() => setTo(null)}>To all instead</button>
          </p>
        )}
        {phase === "closed" ? (
          <footer class="over">
            <p role="status">{room.notice || closed}</p>
            <button type="button" class="primary" onClick={() => room.join(room.room, room.rank)}>Join again</button>
            <button type="button" onClick={() => room.leave()}>Another room</button>
          </footer>
        ) : (
          <Composer key={to?.key ?? "all"} label={to ? `Message to ${to.name} alone` : "Message to the room"} draft={`room:${room.room}:${to?.key ?? ""}`}
            log={log} closed={closed} focus onSend={(text) => room.say(text, to)} onType={() => to || room.write()} />
        )}
      </section>
      <aside class="side" id="people" aria-label="People and settings">
        <People onMessage={(person) => { setTo(person); setList(false); }} />
        {room.moderates && phase === "there" && <Moderate />}
        <Notice>{phase === "closed" ? "" : room.notice}</Notice>
      </aside>
    </div>
  );
}

function Keywords() {
  const now = useNow();
  const live = room.keywords.filter(({ expires_at }) => Date.parse(expires_at) > now);
  return (
    <ul class="keywords" aria-label="What several people talk about">
      {live.map(({ keyword, expires_at }) => <li key={keyword} title={`Until ${wholeTime(Date.parse(expires_at))}`}>{keyword}</li>)}
    </ul>
  );
}

function People({ onMessage }: { onMessage: (person: Person) => void }) {
  return (
    <section aria-labelledby="who">
      <h2 id="who">Who is here</h2>
      {room.count !== null ? <p class="hint">{count(room.count, "person", "people")}: too many for a list.</p> : (
        <ul class="people">
          {room.people.map((person) => (
            <li key={person.key}>
              {person.me ? <span class="me">{person.name} <span class="hint">you</span></span> : (
                <>
                  <button type="button" class="link" title={`Write to ${person.name} alone`} onClick={() => onMessage(person)}>{person.name}</button>
                  {room.moderates && (
                    <button type="button" class="small" title={`${person.name} may speak while it is quiet`} onClick={() => room.grant(person, VIP)}>
                      Let speak
                    </button>
                  )}
                </>
              )}
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

function Moderate() {
  const [title, setTitle] = useState(room.title);
  const [time, setTime] = useState("0");
  return (
    <section aria-labelledby="moderate" class="moderate">
      <h2 id="moderate">Moderate</h2>
      <form onSubmit={(event) => { event.preventDefault(); room.update({ title: title.trim() }); }}>
        <Field label="Title" value={title} onValue={setTitle} max={100} required={false} />
        <button type="submit">Set title</button>
      </form>
      <div class="field">
        <label for="quiet-for">Quiet</label>
        <select id="quiet-for" value={time} disabled={room.quiet} onChange={(event) => setTime(event.currentTarget.value)}>
          <option value="0">until it is ended</option>
          <option value="60">for a minute</option>
          <option value="300">for 5 minutes</option>
          <option value="900">for 15 minutes</option>
        </select>
      </div>
      {room.quiet
        ? <button type="button" onClick={() => room.update({ quiet: false })}>Open the room</button>
        : <button type="button" onClick={() => room.update({ quiet: true, quiet_rank: VIP, ...(Number(time) && { for_seconds: Number(time) }) })}>Make it quiet</button>}
      <p class="hint">You have rank {room.rank}{room.rank >= MODERATOR ? ": moderator" : ""}.</p>
    </section>
  );
}
