//! A fixed address in front of a server that gets another port at every restart.
//!
//! Clients see what they would see of a server that comes back at its address: connections break
//! when it goes, and are refused (closed at once) while it is away.

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The address, and where it leads.
pub struct Door {
    /// What clients dial.
    pub address: String,
    target: watch::Sender<Option<String>>,
}

impl Door {
    /// A door that leads nowhere yet.
    pub async fn open() -> Door {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (target, leads_to) = watch::channel(None);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let target: Option<String> = leads_to.borrow().clone();
                tokio::spawn(pass_on(client, target));
            }
        });
        Door { address, target }
    }

    /// Leads to another server, or nowhere. Connections that are open stay as they are.
    pub fn lead_to(&self, target: Option<String>) {
        self.target.send_replace(target);
    }
}

async fn pass_on(mut client: TcpStream, target: Option<String>) {
    let Some(target) = target else { return };
    if let Ok(mut server) = TcpStream::connect(target).await {
        // How a connection breaks is the client's concern.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    }
}
