//! HTTP: connections, routes, the upgrade; and the drain at the end.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Extension, Request, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, VARY};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use switchboard_contract::limits;
use switchboard_contract::reason::CloseCode;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::auth::token::Token;
use crate::auth::{Auth, Identity};
use crate::feed_task::FeedHandle;
use crate::hub::Hub;
use crate::lobby_task::LobbyHandle;
use crate::mailbox::{Event, Mailbox};
use crate::page::{File, Page};
use crate::session::{SessionLimits, Totals};
use crate::{handshake, observe, socket};

/// The same endpoint under all four: phoenix.js appends `/websocket`, clients of 2015 connect to the bare path.
const SOCKET_PATHS: [&str; 4] = ["/socket/websocket", "/socket", "/ws/websocket", "/ws"];
const LONGPOLL_PATHS: [&str; 2] = ["/socket/longpoll", "/ws/longpoll"];

/// What the sockets of one gateway share.
pub struct Gateway {
    /// The lobby's task.
    pub lobby: LobbyHandle,
    /// How tokens are treated.
    pub auth: Auth,
    /// The chats and rooms with members here.
    pub hub: Hub,
    /// The feeds' task.
    pub feeds: FeedHandle,
    /// Limits of each session.
    pub limits: Arc<SessionLimits>,
    /// What the sessions count.
    pub totals: Arc<Totals>,
    /// Origins that may connect although they are another host's.
    pub allowed_origins: Vec<String>,
    sockets: Mutex<HashMap<u64, Mailbox>>,
    socket_ids: AtomicU64,
    away: AtomicBool,
    draining: AtomicBool,
}

/// A socket's place among the open ones; dropping it frees the place.
pub struct Registered {
    id: u64,
    gateway: Arc<Gateway>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut sockets = self.gateway.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.remove(&self.id);
        metrics::gauge!("switchboard_gateway_connections").set(sockets.len() as f64);
    }
}

impl Gateway {
    /// A gateway without sockets.
    pub fn new(
        lobby: LobbyHandle,
        hub: Hub,
        feeds: FeedHandle,
        auth: Auth,
        limits: SessionLimits,
        allowed_origins: Vec<String>,
    ) -> Self {
        Gateway {
            lobby,
            auth,
            hub,
            feeds,
            limits: Arc::new(limits),
            totals: Arc::default(),
            allowed_origins,
            sockets: Mutex::new(HashMap::new()),
            socket_ids: AtomicU64::new(0),
            away: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        }
    }

    /// Notes an open socket.
    pub fn register(self: &Arc<Self>, mailbox: &Mailbox) -> Registered {
        let id = self.socket_ids.fetch_add(1, Ordering::Relaxed);
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.insert(id, mailbox.clone());
        metrics::counter!("switchboard_gateway_connections_opened_total").increment(1);
        metrics::gauge!("switchboard_gateway_connections").set(sockets.len() as f64);
        Registered { id, gateway: self.clone() }
    }

    /// How many sockets are open.
    pub fn connections(&self) -> usize {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether new sockets are refused: see [`crate::away`].
    pub(crate) fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    pub(crate) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::Relaxed);
    }

    /// Whether the process stops, and the sockets are closed.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(crate) fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn mailboxes(&self) -> Vec<Mailbox> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Hands an event to all sockets. There may be many, so that others have their turn in between.
    pub async fn tell_all(&self, event: &Arc<Event>) {
        for chunk in self.mailboxes().chunks(limits::DISCONNECT_CHUNK) {
            chunk.iter().for_each(|mailbox| mailbox.send(event.clone()));
            tokio::task::yield_now().await;
        }
    }

    /// Closes all sockets with 1012, in batches spread over `time`, so that they do not all reconnect at once.
    pub async fn drain(&self, time: Duration) {
        const BATCHES: usize = 20;
        let mailboxes = self.mailboxes();
        for batch in mailboxes.chunks(mailboxes.len().div_ceil(BATCHES).max(1)) {
            for mailbox in batch {
                mailbox.send(Arc::new(Event::Close(CloseCode::Draining)));
            }
            let step = time / u32::try_from(BATCHES).unwrap_or(u32::MAX);
            tokio::time::sleep(step.mul_f64(rand::random_range(0.5..1.5))).await;
        }
    }
}

/// Listens, with room for a crowd that comes at once: all clients of a gateway that has died, say.
///
/// # Errors
/// If the address is taken, or none of this machine.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // The port of a gateway that was here a moment ago.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(limits::ACCEPT_BACKLOG)
}

/// Accepts connections until `stop`; sockets that are open then stay open.
pub async fn accept(listener: TcpListener, router: Router, connections_max: usize, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(connections_max));
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => match permits.clone().try_acquire_owned() {
                Ok(permit) => {
                    tokio::spawn(serve(stream, peer, router.clone(), Arc::new(permit)));
                }
                Err(_) => {
                    metrics::counter!("switchboard_gateway_connections_refused_total").increment(1);
                    tracing::debug!(%peer, "refused: --max-connections is reached");
                }
            },
            // Out of files, most likely: accepting again at once would spin.
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Held by a connection, and by the socket it becomes, until both are gone.
#[derive(Clone)]
struct Permit(#[allow(dead_code)] Arc<OwnedSemaphorePermit>);

/// Where a connection comes from.
#[derive(Clone, Copy)]
struct Peer(SocketAddr);

async fn serve(stream: TcpStream, peer: SocketAddr, router: Router, permit: Arc<OwnedSemaphorePermit>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "TCP_NODELAY refused");
    }
    let service = tower::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Permit(permit.clone()));
        request.extensions_mut().insert(Peer(peer));
        router.clone().oneshot(request.map(Body::new))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HTTP_HEADER_TIMEOUT)
        .max_buf_size(limits::HTTP_HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .with_upgrades()
        .await;
    if let Err(error) = served {
        if error.is_timeout() {
            observe::full("header_time");
        } else if error.is_parse_too_large() {
            observe::full("header_bytes");
        }
        tracing::debug!(%peer, %error, "connection ended");
    }
}

/// What is served beside the HTTP API: sockets, the page, and the counts.
pub fn router(gateway: Arc<Gateway>, page: Page) -> Router {
    let mut router = Router::new().route("/", get(index).layer(Extension(page.index.clone())));
    for path in SOCKET_PATHS {
        router = router.route(path, get(upgrade));
    }
    for path in LONGPOLL_PATHS {
        router = router.route(path, get(longpoll).post(longpoll));
    }
    router.with_state(gateway).merge(page.assets())
}

async fn upgrade(
    State(gateway): State<Arc<Gateway>>,
    Extension(permit): Extension<Permit>,
    Extension(Peer(peer)): Extension<Peer>,
    uri: Uri,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return rejection.into_response(),
    };
    if gateway.is_away() {
        let seconds = limits::CUT_OFF_RETRY.as_secs().to_string();
        return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, seconds)], "cut off\n").into_response();
    }
    let vsn = match handshake::check(&uri, &headers, &gateway.allowed_origins) {
        Ok(vsn) => vsn,
        Err(error) => {
            tracing::debug!(%error, "no upgrade");
            return (error.status(), format!("{error}\n")).into_response();
        }
    };
    let identity = match gateway.auth.admit(Token::of_request(&uri, &headers)).await {
        Ok(identity) => identity,
        Err(error) => {
            tracing::info!(%peer, %error, "no upgrade: the user token does not count");
            return (StatusCode::FORBIDDEN, format!("user_token: {error}\n")).into_response();
        }
    };
    if let Identity::Verified(verified) = &identity
        && let Some(wait) = gateway.limits.users.banned(&verified.claims.user, Instant::now())
    {
        let seconds = wait.as_millis().div_ceil(1_000).to_string();
        return (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, seconds)], "too many refusals\n").into_response();
    }
    // Buffers this small cost 3 KB a socket instead of 137; large frames grow them for as long as they last. What is
    // written has none until something is sent; 8 KiB is where it is written before it is flushed: a burst, whole.
    upgrade
        .protocols(["phoenix"])
        .read_buffer_size(256)
        .write_buffer_size(8 * 1024)
        .max_write_buffer_size(4 * limits::FRAME_BYTES_MAX + limits::HISTORY_REPLY_BYTES_MAX * 2)
        .max_frame_size(limits::FRAME_BYTES_MAX)
        .max_message_size(limits::FRAME_BYTES_MAX)
        .on_upgrade(move |ws| async move {
            socket::serve(Box::new(ws), vsn, identity, gateway).await;
            drop(permit);
        })
}

async fn longpoll(request: Request) -> (StatusCode, String) {
    let path = request.uri().path().trim_end_matches("/longpoll").to_owned();
    (StatusCode::NOT_FOUND, format!("long polling is not offered here; connect a WebSocket to {path}/websocket\n"))
}

async fn index(
    State(gateway): State<Arc<Gateway>>,
    Extension(page): Extension<Arc<File>>,
    headers: HeaderMap,
) -> Response {
    let accepts = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accepts.contains("text/html") {
        return page.answer(&headers);
    }
    let status = gateway.lobby.view().borrow().status.unwrap_or_default();
    let json = serde_json::json!({
        "teachers": status.teachers,
        "students": status.students(),
        "chats": status.chatting,
    });
    ([(CONTENT_TYPE, "application/json"), (VARY, "accept")], json.to_string()).into_response()
}
