// The page: which view is shown, and what stands around it.

import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { takeTokens, version } from "./identity";
import { useModels } from "./model";
import { Connection } from "./parts";
import { operator } from "./operator";
import { room } from "./room";
import { student } from "./student";
import "./style.css";
import { teacher } from "./teacher";
import { Operator } from "./views/operator";
import { Room } from "./views/room";
import { Student } from "./views/student";
import { Teacher } from "./views/teacher";

const VIEWS = [
  { path: "student", label: "Ask" },
  { path: "teacher", label: "Answer" },
  { path: "room", label: "Rooms" },
  { path: "operator", label: "Operate" },
];

/** `#/room/lounge` is the view `room`, of `lounge`. */
function place(): [view: string, rest: string] {
  const [view = "", rest = ""] = location.hash.replace(/^#\/?/, "").split("/");
  try {
    return [VIEWS.some(({ path }) => path === view) ? view : "student", decodeURIComponent(rest)];
  } catch {
    return ["student", ""];
  }
}

function App() {
  const [[view, rest], setPlace] = useState(place);
  useModels(student, teacher, room);
  useEffect(() => {
    const moved = () => {
      takeTokens();
      setPlace(place());
    };
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  const waiting = { student: student.chat?.unread ?? 0, teacher: teacher.unread, room: 0, operator: 0 } as Record<string, number>;
  const unread = (waiting["student"] ?? 0) + (waiting["teacher"] ?? 0);
  useEffect(() => {
    document.title = unread ? `(${unread}) Switchboard` : "Switchboard";
  }, [unread]);
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); document.getElementById("main")?.focus(); }}>To the content</a>
      <header class="top">
        <span class="brand">Switchboard</span>
        <nav aria-label="Views">
          {VIEWS.map(({ path, label }) => (
            <a key={path} href={`#/${path}`} aria-current={path === view ? "page" : undefined}>
              {label}
              {path !== view && (waiting[path] ?? 0) > 0 && <span class="badge">{waiting[path]}<span class="unseen"> unread</span></span>}
            </a>
          ))}
        </nav>
        <Connection />
      </header>
      <main id="main" tabIndex={-1}>
        {view === "student" && <Student />}
        {view === "teacher" && <Teacher />}
        {view === "room" && <Room id={rest} key={rest} />}
        {view === "operator" && <Operator />}
      </main>
      <footer class="bottom">{version && `Switchboard ${version}`}</footer>
    </>
  );
}

takeTokens();
student.resume();
teacher.resume();
room.resume();
operator.resume();
render(<App />, document.getElementById("app")!);
