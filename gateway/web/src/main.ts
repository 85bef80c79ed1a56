import "./style.css";

const counts = document.querySelector("#counts");
const version = document.querySelector<HTMLMetaElement>("meta[name=switchboard-version]")?.content;
const answer = await fetch("/", { headers: { accept: "application/json" } });
if (counts) counts.textContent = `${version}: ${await answer.text()}`;
