// The operator's view: the whole system, as it says itself once a second.

import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { useModels } from "../model";
import { useNow } from "../now";
import { type Point, operator } from "../operator";
import { Field, Lost, Notice } from "../parts";
import { span, time } from "../words";

export function Operator() {
  useModels(operator);
  if (operator.phase === "form") return <SignIn />;
  if (operator.phase === "missing") return <Missing />;
  return <Board />;
}

function SignIn() {
  const [secret, setSecret] = useState("");
  return (
    <form class="card" onSubmit={(event) => { event.preventDefault(); if (secret) operator.look(secret); }}>
      <h1>Look inside</h1>
      <p class="lead">Gateways, the queue, chats and feeds, as they are now.</p>
      <Field label="API secret" value={secret} onValue={setSecret} secret max={500} autocomplete="current-password" focus
        hint="The one of the gateways' HTTP API. `make run` has local-secret." />
      <button class="primary" type="submit">Look</button>
      <Notice>{operator.notice}</Notice>
    </form>
  );
}

function Missing() {
  return (
    <section class="card">
      <h1>There is no such feed</h1>
      <p>This system has no feed named <code>operator</code>. Add it to the file of feeds that the history service reads, and come back:</p>
      <pre tabIndex={0}>{'[[feed]]\nname = "operator"\ninterval = "1s"\nsecret = true\nnats = "sb.history.operator"'}</pre>
      <button type="button" class="primary" onClick={() => operator.leave()}>Back</button>
    </section>
  );
}

function Board() {
  const { seen, points, stale } = operator;
  const now = useNow();
  const ago = (at: string) => span((now - Date.parse(at)) / 1_000);
  const newest = points.at(-1);
  return (
    <div class="board">
      <header class="board-head">
        <h1>The system</h1>
        <p class="hint" role="status">{stale ? `No news for ${ago(stale.since)}: ${stale.reason}` : seen ? `As of ${time(Date.parse(seen.at))}` : "Waiting for the first news…"}</p>
        <button type="button" onClick={() => operator.leave()}>Close</button>
      </header>
      <Lost>What you see is as old as that.</Lost>
      <div class="charts">
        <Chart label="Sockets" points={points} of="connections" now={newest?.connections} />
        <Chart label="Messages per second" points={points} of="messages" now={newest?.messages} />
        <Chart label="Joins per second" points={points} of="joins" now={newest?.joins} />
      </div>
      <div class="tables">
        <Part title="Gateways" missing={seen && !seen.gateways} leftOut={seen?.gateways?.left_out}>
          <Table head={["Gateway", "Sockets", "State", "Up for"]} empty="No gateway is heard."
            rows={seen?.gateways?.all.map((gateway) => [
              <code key="name" title={`Version ${gateway.version}`}>{gateway.name}</code>, gateway.connections,
              gateway.draining === null ? "does not answer" : gateway.draining ? <strong key="state" class="warn">draining</strong> : "open", ago(gateway.since),
            ])} />
        </Part>
        <Part title="Matcher and history" missing={seen && !seen.matcher && !seen.histories}>
          <Table head={["Part", "Who"]} empty="" rows={seen && [
            ["Leader", seen.matcher?.leader ? <code key="leader" title={`Epoch ${seen.matcher.epoch}`}>{seen.matcher.leader}</code> : <strong key="none" class="warn">nobody leads</strong>],
            ["Standing by", seen.matcher?.standbys.length ? seen.matcher.standbys.map((name) => <code key={name}>{name} </code>) : "nobody"],
            ["History", seen.histories?.length ? seen.histories.map((name) => <code key={name}>{name} </code>) : "nobody"],
          ]} />
        </Part>
        <Part title={`Queue${seen?.lobby ? `: ${seen.lobby.waiting}` : ""}`} missing={seen && !seen.queue} leftOut={seen?.queue?.left_out}>
          <Table head={["", "Student", "Waits for"]} empty="Nobody waits."
            rows={seen?.queue?.first.map(({ student, since }, at) => [at + 1, <code key="id">{student}</code>, ago(since)])} />
        </Part>
        <Part title={`Chats${seen?.lobby ? `: ${seen.lobby.chatting}` : ""}`} missing={seen && !seen.chats} leftOut={seen?.chats?.left_out}>
          <Table head={["Teacher", "Student", "For"]} empty={`Nobody talks. ${seen?.lobby?.teachers ?? 0} teachers are there.`}
            rows={seen?.chats?.newest.map(({ id, teacher, student, since }) => [<code key="t" title={`Chat ${id}`}>{teacher}</code>, <code key="s">{student}</code>, ago(since)])} />
        </Part>
        <Part title="Feeds" missing={seen && !seen.feeds} leftOut={seen?.feeds?.left_out}>
          <Table head={["Feed", "Polls", "Failed", "Source"]} empty="Nobody listens to a feed."
            rows={seen?.feeds?.all.map(({ name, owner, polls, failed, stale }) => [
              <code key="name" title={`Polled by ${owner}`}>{name}</code>, polls, failed, stale ? <strong key="stale" class="warn" title={stale.reason}>silent for {ago(stale.since)}</strong> : "answers",
            ])} />
        </Part>
      </div>
    </div>
  );
}

function Part({ title, missing, leftOut, children }: { title: string; missing: boolean | null | undefined; leftOut?: number | undefined; children: ComponentChildren }) {
  return (
    <section class="part" aria-label={title}>
      <h2>{title}</h2>
      {missing ? <p class="warn">It did not answer in time; the next news may have it.</p> : children}
      {!!leftOut && <p class="hint">and {leftOut} more</p>}
    </section>
  );
}

function Table({ head, rows, empty }: { head: string[]; rows: ComponentChildren[][] | null | undefined; empty: string }) {
  if (!rows) return <p class="hint">…</p>;
  if (!rows.length) return <p class="hint">{empty}</p>;
  return (
    <div class="scroll-x" tabIndex={0} role="group" aria-label="Table">
      <table>
        <thead><tr>{head.map((cell) => <th key={cell} scope="col">{cell || <span class="unseen">Place</span>}</th>)}</tr></thead>
        <tbody>{rows.map((row, at) => <tr key={at}>{row.map((cell, column) => <td key={column}>{cell}</td>)}</tr>)}</tbody>
      </table>
    </div>
  );
}

const WIDTH = 300;
const HEIGHT = 72;

function Chart({ label, points, of, now }: { label: string; points: Point[]; of: "connections" | "messages" | "joins"; now: number | undefined }) {
  const values = points.map((point) => point[of]);
  const max = Math.max(1, ...values);
  const step = WIDTH / 179;
  const line = values.map((value, at) => `${(WIDTH - (values.length - 1 - at) * step).toFixed(1)},${(HEIGHT - 2 - (value / max) * (HEIGHT - 6)).toFixed(1)}`).join(" ");
  const shown = (value: number) => value.toLocaleString("en", { maximumFractionDigits: value < 10 && of !== "connections" ? 1 : 0 });
  return (
    <figure class="chart">
      <figcaption>{label}<strong data-chart={of}>{now === undefined ? "–" : shown(now)}</strong></figcaption>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={`${label}: ${now === undefined ? "not known yet" : shown(now)}, at most ${shown(max)} in three minutes`}>
        {line && <polyline points={line} />}
      </svg>
      <p class="hint">at most {shown(max)} in 3 minutes</p>
    </figure>
  );
}
