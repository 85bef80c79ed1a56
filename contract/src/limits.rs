//! Every limit, with its unit, in one place. What is configurable has its default here.

use std::time::Duration;

// What a client may send.

/// A WebSocket frame or message; above it the socket is closed with 1009. Bytes.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
/// The payload of one event; above it `payload_too_large`. Bytes.
pub const PAYLOAD_BYTES_MAX: usize = 32 * 1024;
/// A topic's or an event's name. Bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// A `ref` or `join_ref`, as JSON text: as much as the binary frames can carry. Bytes.
pub const REF_BYTES_MAX: usize = 255;
/// How deep JSON may nest. Levels.
pub const JSON_DEPTH_MAX: usize = 64;
/// A user id or chat id. Bytes.
pub const ID_BYTES_MAX: usize = 128;
/// A session's id in a room. Bytes.
pub const SESSION_BYTES_MAX: usize = 64;
/// A room's title; a longer one is cut. Bytes.
pub const TITLE_BYTES_MAX: usize = 256;
/// Users with a rank of their own in one room; a further grant is void.
pub const GRANTS_MAX: usize = 1_000;
/// Keywords of one room.
pub const KEYWORDS_MAX: usize = 15;
/// A message id that a client gives for deduplication. Bytes.
pub const MESSAGE_ID_BYTES_MAX: usize = 128;
/// The HTTP headers of an upgrade, all together. Bytes.
pub const HTTP_HEADER_BYTES_MAX: usize = 16 * 1024;

// A socket.

/// Channels of one socket, by default.
pub const CHANNELS_MAX: usize = 100;
/// Frames of one topic that wait behind a pending one; the next is `rate_limited`.
pub const WAITING_FRAMES_MAX: usize = 64;
/// All frames of one socket that wait behind pending ones. Bytes.
pub const WAITING_BYTES_MAX: usize = 1024 * 1024;
/// Frames ready to be sent to one socket; more, and it is too slow to read: closed with 1008.
pub const MAILBOX_MAX: usize = 1024;
/// Chats that a lobby channel remembers having shown, so as to show each once: all that a teacher can have.
pub const SHOWN_CHATS_MAX: usize = CAPACITY_LIMIT as usize;
/// Frames a second of one socket; above it, it is read more slowly.
pub const FRAMES_PER_SECOND_MAX: u32 = 5_000;
/// Nothing heard for this long: closed with 1001.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Frames of one topic that wait from which on the socket is read more slowly: so a burst is not refused.
pub const WAITING_FRAMES_MANY: usize = WAITING_FRAMES_MAX / 2;
/// For each frame that waits beyond these, the next one is read so much later; at once when there are fewer.
pub const WAITING_PAUSE: Duration = Duration::from_millis(5);
/// From accepting a connection to the end of its HTTP headers.
pub const HTTP_HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// One flush to a socket; longer, and it is too slow to read.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a socket may take to answer our close frame.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// A join or push without an answer is `unavailable` after this time: clients are promised 5 s.
pub const ANSWER_TIMEOUT: Duration = Duration::from_millis(4_800);
/// Connections that wait to be accepted: as many as Linux allows by default. Beyond them the kernel drops what clients
/// send, who try again after 1 s at the earliest.
pub const ACCEPT_BACKLOG: u32 = 4_096;
/// Open connections of one gateway, by default: below the usual limit of 20,000 open files.
pub const CONNECTIONS_MAX: usize = 16_000;

// Tokens.

/// A token, as text. Bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// How far the clocks of issuer and gateway may differ, by default.
pub const TOKEN_LEEWAY: Duration = Duration::from_secs(30);
/// From one reading of a JWKS to the next, by default.
pub const JWKS_INTERVAL: Duration = Duration::from_secs(300);
/// The same after one that failed; and a set is not read more often for keys that are not known.
pub const JWKS_INTERVAL_MIN: Duration = Duration::from_secs(10);
/// One reading of a JWKS: a push that waits for it is answered within [`ANSWER_TIMEOUT`].
pub const JWKS_TIMEOUT: Duration = Duration::from_secs(3);
/// A JWKS. Bytes.
pub const JWKS_BYTES_MAX: usize = 256 * 1024;
/// Keys in a JWKS: each that names no `kid` may have to be tried.
pub const JWKS_KEYS_MAX: usize = 64;

// A gateway.

/// Commands waiting for one topic's task.
pub const TOPIC_COMMANDS_MAX: usize = 1024;
/// Commands waiting for the lobby's task.
pub const LOBBY_COMMANDS_MAX: usize = 16_384;
/// Live messages of a topic that are kept for members whose join is not answered yet.
pub const JOIN_BUFFER_MAX: usize = 1024;
/// Live messages of a topic that wait until what is missing before them is there; beyond them a `gap` is shown.
pub const REPAIR_BUFFER_MAX: usize = 1024;
/// What is missing in a topic's log is asked of history for this long,
pub const REPAIR_HISTORY_TIMEOUT: Duration = Duration::from_secs(1);
/// then read from the stream for this long; then a `gap` is shown.
pub const REPAIR_STREAM_TIMEOUT: Duration = Duration::from_secs(3);
/// What a member missed who comes back to a room is asked of history for this long, within [`LOG_ACK_TIMEOUT`]; then a
/// `gap` is shown.
pub const REJOIN_HISTORY_TIMEOUT: Duration = Duration::from_secs(3);
/// Entries that one repair may bring; with more a `gap` is shown.
pub const REPAIR_ENTRIES_MAX: usize = 1024;
/// How often a gateway asks whether its topics have seen all.
pub const BEHIND_INTERVAL: Duration = Duration::from_secs(5);
/// When that is asked again if there was no answer.
pub const BEHIND_RETRY: Duration = Duration::from_millis(500);
/// How long a topic that is behind waits for what may be on its way already.
pub const BEHIND_GRACE: Duration = Duration::from_millis(250);
/// A topic with many members that has sent them something collects what comes within this time, and sends it together:
/// a write to a socket costs more than anything else, and carries many messages for the price of one.
pub const FANOUT_INTERVAL: Duration = Duration::from_millis(10);
/// How long a topic without members keeps its subscription.
pub const TOPIC_LINGER: Duration = Duration::from_millis(500);
/// Claims and ends of chats that one gateway waits for the matcher to answer; a further one is `unavailable`.
pub const MATCHER_REQUESTS_MAX: usize = 16_384;
/// While nobody waits, one claim of a channel in this time goes on to the matcher.
pub const CLAIM_INTERVAL: Duration = Duration::from_millis(100);
/// A log write is acknowledged in this time, or it is `unavailable`.
pub const LOG_ACK_TIMEOUT: Duration = Duration::from_secs(4);
/// A read of the history or of a record, tried again until the join's time is over.
pub const READ_TIMEOUT: Duration = Duration::from_millis(1_500);
/// A replica of history that has not answered in this time may be paused, or out of reach: all are asked.
pub const READ_FIRST_TIMEOUT: Duration = Duration::from_millis(400);
/// How long a `new:chat` of a chat that the user had already is held back, for the client to rejoin it by itself.
pub const NEW_CHAT_HOLD: Duration = Duration::from_millis(500);
/// After SIGTERM: how long a gateway keeps serving while it is already unready, by default.
pub const DRAIN_DELAY: Duration = Duration::from_millis(500);
/// After SIGTERM: the end of everything, of a gateway so long after the time over which it closes its sockets.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(15);
/// At the very end: how long the last traces may take to be exported.
pub const TRACES_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

// The HTTP API.

/// A request of the HTTP API is answered in this time from when all of it is there; and its body comes in this time.
pub const API_TIMEOUT: Duration = Duration::from_millis(2_500);
/// The body of a request of the HTTP API: a payload of [`PAYLOAD_BYTES_MAX`], and what stands around it. Bytes.
pub const API_BODY_BYTES_MAX: usize = 64 * 1024;
/// An `Idempotency-Key`. Bytes.
pub const API_KEY_BYTES_MAX: usize = 255;
/// Events of one room go to NATS one after the other on each gateway; so do those of rooms that share one of these
/// turns.
pub const API_TURNS: usize = 64;
/// Sockets that are told of a disconnect before others have their turn.
pub const DISCONNECT_CHUNK: usize = 256;
/// Questions of the HTTP API about who is in a room that are on their way; a further one is `unavailable`.
pub const PRESENCE_LOOKS_MAX: usize = 1_000;

// Presence.

/// Metas of a room above which clients get a count instead of lists, by default; lists again at four fifths of it.
pub const PRESENCE_LIST_MAX: usize = 1_000;
/// Changes of a room's members are told to clients and to other gateways at most this often.
pub const PRESENCE_COALESCE: Duration = Duration::from_millis(50);
/// A count is told at most this often: it goes to very many.
pub const PRESENCE_COUNT_INTERVAL: Duration = Duration::from_secs(1);
/// A gateway's first member of a room waits this long at most for what other gateways have to say.
pub const PRESENCE_WAIT: Duration = Duration::from_millis(300);
/// A gateway that was asked for its members of a room and has not answered is asked again after this time.
pub const PRESENCE_ASK_RETRY: Duration = Duration::from_secs(1);
/// What a digest says that is not here yet may be on its way for this long.
pub const PRESENCE_GRACE: Duration = Duration::from_millis(250);
/// How often a gateway looks which others are silent.
pub const PRESENCE_LOOK: Duration = Duration::from_millis(250);
/// Members and rooms in one message between gateways: keeps it below [`MESSAGE_BYTES_MAX`].
pub const PRESENCE_MEMBERS_MAX: usize = 300;
/// Parts in which one gateway's members of one room come; what is above them is not listed elsewhere.
pub const PRESENCE_PARTS_MAX: u32 = 400;
/// Rooms in the digest of one heartbeat; the rest goes with the next ones.
pub const DIGEST_ROOMS_MAX: usize = 300;
/// Rooms that wait for a place in a digest; above it a heartbeat's number is left out, and others ask for everything.
pub const DIGEST_WAITING_MAX: usize = 20_000;
/// Users whose rates one gateway knows; further ones are not limited, and counted.
pub const LIMITED_USERS_MAX: usize = 100_000;
/// Messages of one user that are remembered to know repetitions; then the oldest is forgotten.
pub const SAID_KEPT_MAX: usize = 256;
/// Gateways that one gateway knows; what a further one says is ignored, and counted.
pub const GATEWAYS_MAX: usize = 1_000;
/// Gateways whose goodbye is remembered, so that what was still on its way from one brings nobody back.
pub const GONE_GATEWAYS_MAX: usize = 100;
/// Commands waiting for the presence's task.
pub const PRESENCE_COMMANDS_MAX: usize = 16_384;
/// Recipients named in one direct message.
pub const DIRECT_RECIPIENTS_MAX: usize = 100;
/// Sockets of one gateway in one direct message between gateways; with more it goes in several.
pub const DIRECT_CHANNELS_MAX: usize = 10_000;

// The lobby.

/// Students waiting at once; the next one is refused with `queue_full`.
pub const QUEUE_MAX: usize = 100_000;
/// A teacher's capacity where it names none. Chats.
pub const CAPACITY_DEFAULT: u32 = 5;
/// The largest capacity a teacher may name, by default. Chats.
pub const CAPACITY_MAX: u32 = 50;
/// The largest that may be configured for it: a teacher that leaves with so many chats touches three records for each
/// and its own, all in one batch, and a batch should still have room for something else. Chats.
pub const CAPACITY_LIMIT: u32 = 300;
/// Records in one atomic batch: what NATS allows.
pub const BATCH_RECORDS_MAX: usize = 1000;
/// The shortest time from one atomic batch of several records to the next. nats-server makes and deletes a file store
/// for each (1 to 2 ms of CPU, measured), so few large ones are cheaper than many small ones; the first after a pause
/// does not wait.
pub const BATCH_INTERVAL: Duration = Duration::from_millis(20);
/// A lost user's place is kept this long, by default.
pub const GRACE: Duration = Duration::from_secs(10);
/// A chat that one side has not entered for this long ends.
pub const ENTER_TIMEOUT: Duration = Duration::from_secs(60);
/// A finished chat's record and log stay this long after its last member left.
pub const CHAT_LINGER: Duration = Duration::from_secs(60);
/// `user:status` is coalesced for at most this long.
pub const STATUS_COALESCE: Duration = Duration::from_millis(50);
/// `queue:position` is sent at most this often.
pub const POSITION_INTERVAL: Duration = Duration::from_secs(1);
/// What is owed (a `new:chat`, an entry of a chat's log) is tried again after this long.
pub const OWED_RETRY: Duration = Duration::from_secs(1);
/// A leader repeats its status and epoch this often.
pub const STATUS_REPEAT: Duration = Duration::from_secs(1);
/// Inputs waiting for the matcher's core; a request beyond them is answered `unavailable`.
pub const MATCHER_INBOX_MAX: usize = 200_000;
/// Rows in one table message of a gateway: keeps it below [`MESSAGE_BYTES_MAX`].
pub const TABLE_ROWS_MAX: usize = 500;
/// Positions in one push to a gateway: keeps it below [`MESSAGE_BYTES_MAX`].
pub const POSITIONS_MAX: usize = 10_000;
/// The marker of a purged record of the lobby is kept this long: until a leader that comes after a crash of NATS has
/// looked at what the crash may have left under it. Whole seconds, as NATS has it.
pub const PURGE_TTL: Duration = Duration::from_secs(10);
/// The marker of a lease, and of what NATS itself lets expire. Whole seconds.
pub const MARKER_TTL: Duration = Duration::from_secs(1);
/// So many versions of one record the bucket would hold; there is one. (NATS drops what is above without a trace on
/// disk that it was dropped, so that a crash brings it back: each write drops the one before it instead.)
pub const RECORD_VERSIONS_MAX: i64 = 64;
/// A batch is acknowledged in this time, or its outcome is unknown.
pub const COMMIT_TIMEOUT: Duration = Duration::from_secs(3);

// Logs.

/// Messages kept per room or chat.
pub const LOG_MESSAGES_MAX: usize = 100;
/// The size of one `history` reply. Bytes.
pub const HISTORY_REPLY_BYTES_MAX: usize = 256 * 1024;
/// All logs in a history replica's memory, by default. Bytes.
pub const HISTORY_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Fresh reads that a history replica works on at once; what comes beyond them is not answered.
pub const HISTORY_WAITERS_MAX: usize = 10_000;
/// Logs in one request that asks which have grown: keeps it below [`MESSAGE_BYTES_MAX`].
pub const BEHIND_LOGS_MAX: usize = 500;
/// How often a history replica asks what the stream has: what it has dropped, and whether something does not come.
pub const HISTORY_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Entries that a history replica takes from the stream at once.
pub const HISTORY_CHUNK_MAX: usize = 256;
/// Such chunks that wait to be applied; above it the stream waits.
pub const HISTORY_CHUNKS_MAX: usize = 8;
/// Void entries of a room that a gateway, and a history replica, remember; of an older one nobody can say whether it
/// was.
pub const VOIDS_MAX: usize = 1024;
/// Entries `room:state` kept per room, beside its messages.
pub const LOG_STATES_MAX: usize = 100;
/// How much of a message's text is looked at for keywords. Bytes.
pub const KEYWORD_TEXT_BYTES_MAX: usize = 1024;
/// Different words of one message that can become keywords.
pub const KEYWORD_WORDS_MAX: usize = 32;
/// The length of a keyword; a longer word is none. Bytes.
pub const KEYWORD_BYTES_MAX: usize = 64;
/// A word that nobody used for this long is no keyword any more, by default.
pub const KEYWORD_WINDOW: Duration = Duration::from_secs(300);
/// How often a room's keywords are looked at, and at most told.
pub const KEYWORD_INTERVAL: Duration = Duration::from_secs(1);
/// Rooms whose keywords are looked at in one go, so that reads do not wait for long.
pub const KEYWORD_ROOMS_PER_TURN: usize = 64;
/// A room in which nobody is lives on for this long, by default.
pub const ROOM_LINGER: Duration = Duration::from_secs(60);
/// How often at least it is looked whether somebody is in a room; else a quarter of the linger time.
pub const ROOM_PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// "Nobody" is answered at once; without an answer for this long, somebody is in the room.
pub const ROOM_PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// From a room's record being `closing` until its log may end: a joiner that read the record before has subscribed.
pub const ROOM_CLOSING: Duration = Duration::from_secs(2);
/// A room's record is written so long after a change of its state; several share one write.
pub const ROOM_SNAPSHOT_DELAY: Duration = Duration::from_millis(300);
/// What failed for a room is tried again after this time.
pub const ROOM_RETRY: Duration = Duration::from_secs(1);
/// A record whose room has no life is deleted after this time: a joiner may be about to begin one.
pub const ROOM_ORPHAN_DELAY: Duration = Duration::from_secs(5);
/// Requests for rooms (probes, records, entries) on their way at once; the others wait their turn.
pub const ROOM_REQUESTS_MAX: usize = 256;
/// The age at which the room stream drops a message, by default.
pub const LOG_AGE_MAX: Duration = Duration::from_secs(6 * 3600);
/// The least that may be configured for it: longer than anybody waits for an entry that was written.
pub const LOG_AGE_MIN: Duration = Duration::from_secs(5);
/// The size of the room stream, by default. Bytes.
pub const LOG_BYTES_MAX: i64 = 1_000_000_000;
/// The window in which a repeated message id is stored once; as long as the stream keeps messages, if that is shorter.
pub const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

// Feeds.

/// The name of a feed. Bytes.
pub const FEED_NAME_BYTES_MAX: usize = 64;
/// A feed's name with its argument: with `feed:` before it a topic of [`NAME_BYTES_MAX`]. Bytes.
pub const FEED_BYTES_MAX: usize = 250;
/// Feeds of one configuration: keeps a replica's heartbeat, which names them, small.
pub const FEEDS_CONFIGURED_MAX: usize = 200;
/// Feeds that somebody listens to, each argument counted: what a replica knows of; another one is `unavailable`.
pub const FEEDS_MAX: usize = 20_000;
/// The shortest interval of a feed.
pub const FEED_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// The longest interval of a feed.
pub const FEED_INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// A source answers within this time, by default, or within the feed's interval if that is shorter.
pub const FEED_TIMEOUT: Duration = Duration::from_secs(2);
/// Polls of one source at the same time, by default, and how many can be configured.
pub const FEED_CONNECTIONS: usize = 4;
/// See [`FEED_CONNECTIONS`].
pub const FEED_CONNECTIONS_MAX: usize = 64;
/// A source whose connection takes longer than this to make does not answer.
pub const FEED_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Requests for feeds that a replica works on at once; a further one is `unavailable`.
pub const FEED_WANTS_MAX: usize = 256;
/// Feeds whose polling begins at the same time; the others wait.
pub const FEED_BEGINS_MAX: usize = 256;
/// How often a record is tried to be written that others write too.
pub const FEED_WRITES_MAX: usize = 10;
/// Gateways with members of a feed answer its owner within this time, or there is no poll.
pub const FEED_PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// Nobody is there: asked again after this time, and then the feed ends. In a cluster interest travels.
pub const FEED_RELEASE_GRACE: Duration = Duration::from_millis(500);
/// A source that fails is asked ever more seldom, up to this interval or ten of the feed's, whichever is shorter.
pub const FEED_BACKOFF_MAX: Duration = Duration::from_secs(30);
/// When a feed was polled last is written at most this often, where nothing else is to be written.
pub const FEED_POLLED_REPEAT: Duration = Duration::from_secs(10);
/// A replica listens to the heartbeats of others for so long before its own first one.
pub const FEED_LISTEN: Duration = Duration::from_millis(1500);
/// A feed that could not be taken, or was taken away, is tried again after this time.
pub const FEED_TAKE_RETRY: Duration = Duration::from_secs(2);
/// From this interval on a new owner polls at once: the phase that its predecessor missed may be the last for long.
pub const FEED_POLL_AT_ONCE: Duration = Duration::from_secs(2);
/// A history replica that is silent for so long is taken for dead by the others. Less than [`DEAD_AFTER`], because the
/// next poll may be almost 2 s away then, and no member waits for longer than an interval and 6 s.
pub const FEED_DEAD_AFTER: Duration = Duration::from_secs(4);
/// What is being polled is finished, and told, within this time, when a replica stops. The others wait for it.
pub const FEED_LAST_POLL: Duration = Duration::from_millis(500);
/// Gateways in the answer to a feed that asks for them; the others are counted: keeps it below [`PAYLOAD_BYTES_MAX`].
pub const FEED_GATEWAYS_MAX: usize = 100;
/// Questions of feeds about the system itself that a history replica works on at once, of each kind; the others wait.
pub const FEED_QUESTIONS_MAX: usize = 8;
/// Students in the queue that operators are shown; the others are counted, as in each list here.
pub const OPERATOR_QUEUE_MAX: usize = 80;
/// Chats that operators are shown, the newest.
pub const OPERATOR_CHATS_MAX: usize = 40;
/// Gateways that operators are shown, by name.
pub const OPERATOR_GATEWAYS_MAX: usize = 40;
/// Feeds that operators are shown, by name.
pub const OPERATOR_FEEDS_MAX: usize = 40;
/// Matchers that stand by, and history replicas, that operators are shown, by name.
pub const OPERATOR_NAMES_MAX: usize = 10;
/// A list that operators are shown, where ids are long: cut so that all lists fit into [`PAYLOAD_BYTES_MAX`]. Bytes.
pub const OPERATOR_LIST_BYTES_MAX: usize = 7 * 1024;
/// A list of names that operators are shown: the same. Bytes.
pub const OPERATOR_NAMES_BYTES_MAX: usize = 1024;
/// What a part of the system does not answer in this time is not shown to operators; standbys are waited for as long.
pub const OPERATOR_WAIT: Duration = Duration::from_millis(300);
/// A feed that shows it is given this time at least.
pub const OPERATOR_TIMEOUT_MIN: Duration = Duration::from_millis(500);
/// History replicas that are known; others are ignored.
pub const HISTORY_REPLICAS_MAX: usize = 100;

/// Feeds with members on one gateway; a join of a further one is `unavailable`.
pub const GATEWAY_FEEDS_MAX: usize = 10_000;
/// Commands waiting for the task of a gateway's feeds.
pub const FEED_COMMANDS_MAX: usize = 16_384;
/// History answers a gateway that asks for a feed in this time, or it is asked again: a paused replica never does.
pub const FEED_WANT_TIMEOUT: Duration = Duration::from_millis(500);
/// When history is asked again for a feed that nobody could join yet.
pub const FEED_JOIN_RETRY: Duration = Duration::from_millis(100);
/// The shortest time in which history is asked again for a feed that has members.
pub const FEED_RETRY: Duration = Duration::from_secs(1);
/// After a feed's owner was not heard for two intervals and this time, history is asked.
pub const FEED_PATIENCE: Duration = Duration::from_secs(1);
/// After it was not heard for three intervals and this time, members are told.
pub const FEED_SILENCE: Duration = Duration::from_secs(5);
/// Where something of any feed may be lost, all of them ask within this time.
pub const FEED_SPREAD: Duration = Duration::from_secs(1);

// Between services.

/// Any message between services: half of what a server takes by default. Bytes.
pub const MESSAGE_BYTES_MAX: usize = 512 * 1024;
/// A heartbeat's interval.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// Silence after which a gateway is dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(5);
/// A lease that is not renewed expires after this long. Whole seconds, as NATS has it.
pub const LEASE_TTL: Duration = Duration::from_secs(2);
/// One request on the way to an epoch: while a cluster chooses who leads the bucket nobody answers it, so it is soon
/// asked again.
pub const EPOCH_REQUEST_TIMEOUT: Duration = Duration::from_millis(500);
/// How often a leader renews its lease, and how long it waits for one answer.
pub const LEASE_RENEW: Duration = Duration::from_millis(500);
/// A leader takes its lease for lost so long before NATS does.
pub const LEASE_MARGIN: Duration = Duration::from_millis(500);
/// How often a standby looks whether the lease is free.
pub const LEASE_POLL: Duration = Duration::from_millis(200);
/// A gateway that is heard and whose table is not there is asked for it so often.
pub const RESEND_AFTER: Duration = Duration::from_secs(2);
/// The age at which a gateway's record for operators expires.
pub const GATEWAY_RECORD_TTL: Duration = Duration::from_secs(30);
/// How often a service writes something, to know whether NATS carries it.
pub const CARRIED_INTERVAL: Duration = Duration::from_secs(1);
/// The same after one that was not answered.
pub const CARRIED_RETRY: Duration = Duration::from_millis(250);
/// Such a write is answered in this time, or NATS does not carry it; so soon another server is connected to as well.
pub const CARRIED_TIMEOUT: Duration = Duration::from_millis(1500);
/// A service of which NATS has stored nothing for so long looks for another server, and takes nothing for true that is
/// read through a stream's leader: one that is cut off may be followed by another after 4 s, and not know it.
pub const CARRIED_PATIENCE: Duration = Duration::from_secs(3);
/// From one such look to the next at least.
pub const CARRIED_LOOK: Duration = Duration::from_secs(2);
/// Servers that are tried then, at the same time.
pub const CARRIED_SERVERS_MAX: usize = 16;
/// Streams that refused what a service writes take it again once something was stored and nothing refused for so long.
pub const REFUSALS_OVER: Duration = Duration::from_secs(5);
/// A gateway of which NATS has stored nothing for so long, and that hears another gateway no more, moves its sockets
/// away. Longer than a cluster needs to choose its leaders; and whoever is moved is back before [`GRACE`] is over,
/// which begins at [`DEAD_AFTER`].
pub const CUT_OFF_AFTER: Duration = Duration::from_secs(9);
/// Who is refused by a gateway that is cut off asks again after this time, or asks another one.
pub const CUT_OFF_RETRY: Duration = Duration::from_secs(5);
/// Questions of operators that a gateway answers at once; further ones wait.
pub const LOOKS_INSIDE_MAX: usize = 16;
/// How often a service looks whether its credentials for NATS, or the CA, have changed.
pub const CREDENTIALS_LOOK: Duration = Duration::from_secs(2);
/// Credentials that no server let in are tried again after this time.
pub const CREDENTIALS_RETRY: Duration = Duration::from_secs(8);
/// A file of credentials, or of certificates, is not larger. Bytes.
pub const CREDENTIALS_BYTES_MAX: usize = 1024 * 1024;
/// One request between services.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// Requests of a process that wait for an answer from NATS. Above it they fail at once.
pub const REQUESTS_MAX: usize = 65_536;
/// How long a service waits for NATS, and for the streams that others make, before it gives up starting.
pub const START_TIMEOUT: Duration = Duration::from_secs(30);
