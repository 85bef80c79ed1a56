//! What a configuration may say, and on which line it is wrong.

use super::*;

fn env(name: &str) -> Option<String> {
    (name == "SHOP_URL").then(|| "postgres://u:secret@db/shop".to_owned())
}

const GOOD: &str = r#"
[sources.shop]
postgres_env = "SHOP_URL"
connections = 2

[sources.api]
connections = 9

[[feed]]
name = "orders"
interval = "1s"
argument = "[a-z]{1,3}|x"
token = true
source = "shop"
sql = "select count(*) from orders where kind = $1;"

[[feed]]
name = "weather"
interval = "5s"
timeout = "300ms"
source = "api"
http = "https://host/now?at={argument}"
argument = ".*"
headers = { accept = "application/json" }
headers_env = { authorization = "SHOP_URL" }

[[feed]]
name = "load"
interval = "100ms"
nats = "load.now"
"#;

fn find<'a>(catalogue: &'a Catalogue, id: &str) -> Option<&'a Feed> {
    catalogue.find(&FeedId::new(id).expect("a feed's id"))
}

#[test]
fn a_configuration_says_what_to_ask_whom_and_how_often() {
    let catalogue = Catalogue::parse(GOOD, env).expect("a good one");
    assert_eq!(catalogue.names(), ["load".into(), "orders".into(), "weather".into()]);
    let orders = find(&catalogue, "orders:abc").expect("a feed");
    let times = |feed: &Feed| (feed.interval.as_millis(), feed.timeout.as_millis());
    assert_eq!((times(orders), orders.token, orders.secret), ((1_000, 1_000), true, false));
    let source = &catalogue.sources[orders.source];
    assert_eq!(
        (source.connections, source.postgres.as_ref().map(|url| url.0.as_str())),
        (2, env("SHOP_URL").as_deref())
    );
    assert!(matches!(&orders.query, Query::Sql(sql) if sql.ends_with("$1")), "without the semicolon");
    let weather = find(&catalogue, "weather:x").expect("a feed");
    assert_eq!((times(weather), catalogue.sources[weather.source].connections), ((5_000, 300), 9));
    assert!(matches!(&weather.query, Query::Http(_, headers) if headers.len() == 2));
    assert_eq!(times(find(&catalogue, "load").expect("a feed")), (100, 100));
    assert!(!format!("{catalogue:?}").contains("u:secret"));
}

#[test]
fn an_argument_fits_its_whole_pattern_or_there_is_no_such_feed() {
    let catalogue = Catalogue::parse(GOOD, env).expect("a good one");
    for (id, there) in [
        ("orders", false),
        ("orders:", false),
        ("orders:abcd", false),
        ("orders:abc", true),
        ("orders:x", true),
        ("orders:xx y", false),
        ("orders:ABC", false),
        ("orders:abc\n", false),
        ("load", true),
        ("load:", false),
        ("load:x", false),
        ("weather:", true),
        ("weather:a b", true),
        ("weather:..", false),
        ("none", false),
    ] {
        assert_eq!(find(&catalogue, id).is_some(), there, "{id:?}");
    }
}

#[test]
fn every_error_names_its_line() {
    let feed = "[[feed]]\nname = \"a\"\ninterval = \"1s\"\n";
    for (text, line, what) in [
        ("[[feed]]\nname = \"a\"\ninterval = 1s\n".to_owned(), 3, ""),
        ("[[feed]\n".to_owned(), 1, ""),
        ("\n[[feeds]]\n".to_owned(), 2, "unknown field `feeds`"),
        (format!("{feed}nats = \"s\"\nsqk = \"x\"\n"), 5, "unknown field `sqk`"),
        (format!("{feed}nats = 7\n"), 4, "string"),
        ("\n[[feed]]\nname = \"a\"\nnats = \"s\"\n".to_owned(), 2, "missing field `interval`"),
        ("[[feed]]\nname = \"a\"\ninterval = \"soon\"\n".to_owned(), 3, "is no time"),
        ("[[feed]]\nname = \"a\"\ninterval = \"99ms\"\n".to_owned(), 3, "100ms"),
        ("[[feed]]\nname = \"a\"\ninterval = \"61m\"\n".to_owned(), 3, "1h"),
        ("[[feed]]\nname = \"a.b\"\ninterval = \"1s\"\n".to_owned(), 2, "name"),
        ("[[feed]]\nname = \"a:b\"\ninterval = \"1s\"\n".to_owned(), 2, "name"),
        (format!("{feed}timeout = \"2s\"\nnats = \"s\"\n"), 4, "no longer"),
        (format!("{feed}timeout = \"0s\"\nnats = \"s\"\n"), 4, "longer"),
        (format!("{feed}\nargument = \"(\"\nnats = \"s\"\n"), 5, "pattern"),
        (format!("{feed}argument = \"a)|(?:b\"\nnats = \"s\"\n"), 4, "pattern"),
        (format!("{feed}nats = \"s\"\n\n{feed}nats = \"s\"\n"), 7, "two feeds"),
        (format!("\n{feed}"), 2, "no sql, http or nats"),
        (format!("\n{feed}nats = \"s\"\nhttp = \"http://h\"\n"), 2, "more than one"),
        (format!("\n{feed}sql = \"select 1\"\n"), 2, "needs a source"),
        (format!("{feed}source = \"x\"\nnats = \"s\"\n"), 4, "no source"),
        (format!("{feed}source = \"x\"\nsql = \"select 1\"\n[sources.x]\n"), 5, "no postgres"),
        (format!("{feed}source = \"x\"\nnats = \"s\"\n[sources.x]\npostgres = \"postgres://h\"\n"), 5, "takes sql"),
        ("[sources.x]\npostgres = \"p\"\npostgres_env = \"SHOP_URL\"\n".to_owned(), 3, "exclude"),
        ("[sources.x]\npostgres_env = \"NONE\"\n".to_owned(), 2, "no variable"),
        ("[sources.x]\nconnections = 65\n".to_owned(), 2, "from 1 to 64"),
        ("[sources.x]\nconnections = -1\n".to_owned(), 2, ""),
        ("[sources.x]\nurl = \"x\"\n".to_owned(), 2, "unknown field"),
        (format!("{feed}argument = \"a\"\nhttp = \"http://h/\"\n"), 5, "not used"),
        (format!("{feed}http = \"http://h/{{argument}}\"\n"), 4, "needs an argument"),
        (format!("{feed}argument = \"a\"\nhttp = \"http://{{argument}}.h/\"\n"), 5, "host"),
        (format!("{feed}http = \"ftp://h/\"\n"), 4, "http://"),
        (format!("{feed}http = \"h/\"\n"), 4, "no URL"),
        (format!("{feed}http = \"http://u:p@h/\"\n"), 4, "secrets"),
        (format!("{feed}nats = \"s\"\nheaders = {{ a = \"b\" }}\n"), 5, "headers go with http"),
        (format!("{feed}http = \"http://h\"\nheaders = {{ \"a b\" = \"b\" }}\n"), 5, "header's name"),
        (format!("{feed}http = \"http://h\"\nheaders_env = {{ a = \"NONE\" }}\n"), 5, "no variable"),
        (format!("{feed}nats = \"a.*\"\n"), 4, "subject"),
        (format!("{feed}nats = \"sb.history.read\"\n"), 4, "but for sb.history.lobby, sb.history.gateways, "),
        (format!("{feed}nats = \"sb.matcher.status\"\n"), 4, "subject"),
        (format!("{feed}nats = \"sb.history.lobby.x\"\n"), 4, "subject"),
        (format!("{feed}nats = \"_INBOX.x\"\n"), 4, "subject"),
        (format!("{feed}argument = \".*\"\nnats = \"sb.history.lobby\"\n"), 5, "no argument"),
        (format!("{feed}token = true\nnats = \"s\"\nsecret = true\n"), 6, "token and secret exclude each other"),
        (format!("{feed}secret = \"s3cret\"\nnats = \"s\"\n"), 4, "boolean"),
        (format!("{feed}nats = \"sb.history.operator\"\n"), 4, "needs secret = true"),
        (format!("{feed}token = true\nnats = \"sb.history.operator\"\n"), 5, "needs secret = true"),
        (format!("{feed}timeout = \"499ms\"\nsecret = true\nnats = \"sb.history.operator\"\n"), 6, "of 500ms"),
        (format!("{feed}argument = \".*\"\nsecret = true\nnats = \"sb.history.operator\"\n"), 6, "no argument"),
    ] {
        let error = Catalogue::parse(&text, env).expect_err(&text);
        assert_eq!(error.line, line, "{text}\n{error}");
        assert!(error.what.contains(what) && !error.what.is_empty(), "{text}\n{error}");
    }
}

#[test]
fn three_subjects_of_this_system_can_be_asked() {
    for (subject, secret) in
        [("sb.history.lobby", false), ("sb.history.gateways", false), ("sb.history.operator", true)]
    {
        let text = format!("[[feed]]\nname = \"a\"\ninterval = \"1s\"\nsecret = {secret}\nnats = \"{subject}\"\n");
        let catalogue = Catalogue::parse(&text, env).expect(subject);
        let feed = find(&catalogue, "a").expect("a feed");
        assert!(matches!(&feed.query, Query::Nats(asked) if asked == subject) && feed.secret == secret);
    }
}

#[test]
fn there_is_a_most_of_feeds() {
    let text = |count: usize| -> String {
        (0..count).map(|n| format!("[[feed]]\nname = \"n{n}\"\ninterval = \"1s\"\nnats = \"s\"\n")).collect()
    };
    assert!(Catalogue::parse(&text(FEEDS_CONFIGURED_MAX), env).is_ok());
    let error = Catalogue::parse(&text(FEEDS_CONFIGURED_MAX + 1), env).expect_err("too many");
    assert_eq!(error.line, FEEDS_CONFIGURED_MAX * 4 + 2);
}
