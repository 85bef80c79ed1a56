//! What must hold of metrics in the sources, and of the rules and the dashboard that are made of them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::repository::{root, services, uses};

/// Metrics of others that rules and dashboard ask for, where there are such: the library that speaks of this process,
/// kube-state-metrics, the kubelet, and prometheus-nats-exporter with its own names.
const OUTSIDERS: [&str; 15] = [
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "kube_pod_container_resource_limits",
    "kube_pod_container_status_restarts_total",
    "container_memory_working_set_bytes",
    "kubelet_volume_stats_available_bytes",
    "kubelet_volume_stats_capacity_bytes",
    "gnatsd_varz_connections",
    "gnatsd_varz_mem",
    "gnatsd_varz_slow_consumers",
    "jetstream_server_max_storage",
    "jetstream_server_total_message_bytes",
];

/// Each metric that the services describe, with what it is and what is said of it.
fn described() -> BTreeMap<String, (&'static str, String)> {
    let mut all = BTreeMap::new();
    for code in services() {
        let constants: BTreeMap<&str, &str> = code
            .lines()
            .filter_map(|line| {
                let (name, value) = line.strip_prefix("const ")?.split_once(": &str = \"")?;
                Some((name, value.trim_end_matches("\";")))
            })
            .collect();
        for kind in ["counter", "gauge", "histogram"] {
            for (_, call) in
                code.match_indices(&format!("describe_{kind}!(")).map(|(at, found)| code.split_at(at + found.len()))
            {
                let (call, _) = call.split_once(");").expect("the end of a call");
                let name = call.trim_start().split([',', '\n']).next().expect("a name");
                let name = constants.get(name).copied().unwrap_or(name.trim_matches('"'));
                let help = call.rsplit_once('"').and_then(|(before, _)| before.rsplit_once('"')).expect("a text").1;
                let unit = if call.contains("Unit::Seconds") || call.contains("Unit::Bytes") { " (unit)" } else { "" };
                let before = all.insert(name.to_owned(), (kind, format!("{help}{unit}")));
                assert!(before.is_none(), "{name} is described twice");
            }
        }
    }
    assert!(all.len() > 80, "only {} metrics", all.len());
    all
}

#[test]
fn each_metric_is_named_by_convention_described_and_counted() {
    let (services, described) = (services(), described());
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    // Each literal that is the name of a metric.
    let named: BTreeSet<&str> = services
        .iter()
        .flat_map(|code| code.split('"'))
        .filter(|text| text.starts_with("switchboard_") && text.chars().all(legal))
        .collect();
    for name in &named {
        assert!(described.contains_key(*name), "{name} is not described");
    }
    for (name, (kind, help)) in &described {
        let counted = services.iter().map(|code| uses(code, name).1).sum::<usize>();
        assert!(counted > 0, "{name} is described, and nothing counts or sets it");
        let words = help.trim_end_matches(" (unit)");
        assert!(
            words.ends_with('.') && words.starts_with(char::is_uppercase) || words.starts_with("1"),
            "{name}: {words}"
        );
        assert_eq!(name.ends_with("_total"), *kind == "counter", "{name} is a {kind}");
        assert!(*kind != "histogram" || name.ends_with("_seconds"), "{name} has no unit");
        let (stem, _) = name.rsplit_once("_max").unwrap_or((name, ""));
        let measured = stem.ends_with("_seconds") || stem.ends_with("_bytes");
        assert_eq!(help.ends_with(" (unit)"), measured, "{name}: its unit stands in its name and in its description");
        for short in ["_ms", "_millis", "_kib", "_mib", "_kb", "_percent", "_count", "_sum", "_bucket"] {
            assert!(!name.ends_with(short), "{name} ends with {short}");
        }
    }
}

/// The metrics that an expression of PromQL names.
fn metrics(expr: &str) -> Vec<String> {
    let quotes: String = expr.split('"').step_by(2).collect::<Vec<_>>().join("\"\"");
    let mut bare = String::new();
    let mut depth = 0;
    for c in quotes.chars() {
        depth += i32::from("{[".contains(c));
        if depth == 0 {
            bare.push(c);
        }
        depth -= i32::from("}]".contains(c));
    }
    // Lists of labels.
    for word in ["by (", "on (", "without (", "ignoring (", "group_left (", "group_right ("] {
        while let Some((before, rest)) = bare.split_once(word) {
            bare = format!("{before} {}", rest.split_once(')').expect("the end of a list").1);
        }
    }
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut rest = bare.as_str();
    while let Some(at) = rest.find(is_word) {
        let tail = &rest[at..];
        let end = tail.find(|c| !is_word(c)).unwrap_or(tail.len());
        let (word, after) = tail.split_at(end);
        let known = ["and", "or", "unless", "bool", "sum", "max", "min", "count", "avg"].contains(&word);
        let number = word.starts_with(|c: char| c.is_ascii_digit());
        if !known && !number && !after.trim_start().starts_with('(') {
            found.push(word.to_owned());
        }
        rest = after;
    }
    found
}

#[test]
fn metrics_are_found_in_an_expression() {
    let expr = r#"histogram_quantile(0.99, sum by (le) (rate(a_bucket{x=~"b|c", y="d"}[5m]))) > 1.5e3 * on (job) e
        and time() - max(f) or vector(0) unless g == 1"#;
    assert_eq!(metrics(expr), ["a_bucket", "e", "f", "g"]);
}

/// Fails for what is no metric; `_bucket`, `_sum` and `_count` are those of a histogram.
fn check(place: &str, expr: &str, described: &BTreeMap<String, (&'static str, String)>) {
    let named = metrics(expr);
    assert!(!named.is_empty(), "{place}: {expr}");
    for name in named {
        let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let known = match (described.get(&name), histogram.and_then(|histogram| described.get(histogram))) {
            (Some((kind, _)), _) | (None, Some((kind, _))) => (*kind == "histogram") == histogram.is_some(),
            (None, None) => OUTSIDERS.contains(&&*name),
        };
        assert!(known, "{place}: nobody says {name}");
    }
}

/// The rules' names and expressions.
fn rules() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(root().join("deploy/monitoring/rules.yml")).expect("the rules");
    let rules = text.split("      - alert: ").skip(1).map(|rule| {
        let name = rule.lines().next().expect("a name");
        let (_, expr) = rule.split_once("        expr: ").expect("an expression");
        let own = |line: &&str| line.starts_with("          ");
        let expr = match expr.strip_prefix("|\n") {
            Some(block) => block.lines().take_while(own).collect::<Vec<_>>().join("\n"),
            None => expr.lines().next().expect("a line").to_owned(),
        };
        (name.to_owned(), expr)
    });
    rules.collect()
}

#[test]
fn each_alert_asks_for_metrics_that_are_there_and_says_what_is_to_be_done() {
    let (described, rules) = (described(), rules());
    assert!(rules.len() > 30, "only {} alerts", rules.len());
    let text = std::fs::read_to_string(root().join("deploy/monitoring/rules.yml")).expect("the rules");
    let tests = std::fs::read_to_string(root().join("deploy/monitoring/rules_test.yml")).expect("their tests");
    // Without the operator's guide, as in a copy of this folder alone, there is nothing to look up.
    let guide = std::fs::read_to_string(root().join("deploy/README.md")).unwrap_or_default();
    for (name, expr) in &rules {
        check(name, expr, &described);
        let rule = text.split(&format!("- alert: {name}\n")).nth(1).expect("the rule");
        let rule = rule.split("- alert:").next().expect("its text");
        let anchor = name.chars().fold(String::from("alert"), |anchor, c| {
            let dash = if c.is_ascii_uppercase() { "-" } else { "" };
            format!("{anchor}{dash}{}", c.to_ascii_lowercase())
        });
        for part in ["severity: ", "summary: ", "description: ", &format!("runbook: deploy/README.md#{anchor}\n")] {
            assert!(rule.contains(part), "{name}: {part:?} is missing");
        }
        for test in ["fires", "does not fire"] {
            assert!(tests.contains(&format!("name: {name} {test}\n")), "{name}: no test that it {test}");
        }
        let slug = |heading: &str| heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        let told = guide.lines().any(|line| line.starts_with('#') && slug(line) == anchor);
        assert!(guide.is_empty() || told, "{name}: the operator's guide has no section {anchor}");
    }
}

#[test]
fn the_dashboard_shows_metrics_that_are_there_side_by_side() {
    let json = std::fs::read_to_string(root().join("deploy/monitoring/dashboard.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&json).expect("JSON");
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    assert!(
        variables.iter().any(|v| v["name"] == "datasource" && v["type"] == "datasource" && v["query"] == "prometheus")
    );
    let described = described();
    let mut names: Vec<&str> = variables.iter().filter_map(|variable| variable["name"].as_str()).collect();
    names.push("__rate_interval");
    let (mut ids, mut places, mut shown) = (BTreeSet::new(), BTreeSet::new(), 0);
    for panel in dashboard["panels"].as_array().expect("panels") {
        let title = panel["title"].as_str().expect("a title");
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{title}: its id is another one's");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a place"));
        assert!(w > 0 && h > 0 && x + w <= 24, "{title}: {x} {w}");
        for (column, line) in (x..x + w).flat_map(|column| (y..y + h).map(move |line| (column, line))) {
            assert!(places.insert((column, line)), "{title}: lies on another one at {column}, {line}");
        }
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        assert!(panel["description"].as_str().is_some_and(|words| words.ends_with('.')), "{title}: no description");
        for target in panel["targets"].as_array().expect("targets") {
            let expr = target["expr"].as_str().expect("an expression");
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            for variable in expr.split('$').skip(1) {
                let name: String = variable.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                assert!(names.contains(&&*name), "{title}: no variable {name}");
            }
            check(title, expr, &described);
            shown += 1;
        }
    }
    assert!(shown > 80, "only {shown} expressions");
}
