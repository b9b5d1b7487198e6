//! Servers of a test's own, which say what it wants.

use std::net::SocketAddr;
use std::sync::Arc;

use dislog_proto::v1;
use dislog_proto::v1::log_server::{Log, LogServer};
use futures_util::stream;
use tokio::net::TcpListener;
use tonic::Response;

/// Three servers, each what `server` makes of its number and all addresses, for as long as the
/// runtime lives.
pub(crate) async fn serve<L: Log>(
    server: impl Fn(usize, Arc<Vec<SocketAddr>>) -> L,
) -> Arc<Vec<SocketAddr>> {
    let mut listeners = Vec::new();
    for _ in 0..3 {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let servers: Vec<SocketAddr> = listeners.iter().map(|it| it.local_addr().unwrap()).collect();
    let servers = Arc::new(servers);
    for (number, listener) in listeners.into_iter().enumerate() {
        let service = LogServer::new(server(number, servers.clone()));
        let incoming = stream::unfold(listener, |listener| async {
            let accepted = listener.accept().await.map(|(stream, _)| stream);
            Some((accepted, listener))
        });
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(incoming));
    }
    servers
}

/// All of them have a replica; `leader` leads.
pub(crate) fn listed(
    servers: &[SocketAddr],
    leader: Option<usize>,
) -> Response<v1::GetServersResponse> {
    let server = |(number, address): (usize, &SocketAddr)| v1::Server {
        rpc_addr: address.to_string(),
        is_leader: Some(number) == leader,
        is_replica: true,
        ..v1::Server::default()
    };
    let servers = servers.iter().enumerate().map(server).collect();
    Response::new(v1::GetServersResponse { servers })
}
