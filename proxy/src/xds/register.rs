//! Telling the control plane that this workload is here: a lease that is renewed while the
//! application answers, and given back when the proxy drains.

use std::collections::HashMap;
use std::time::Duration;

use pillion_xds::pillion::v1 as pb;
use pillion_xds::pillion::v1::workload_service_client::WorkloadServiceClient;
use tonic::Code;

use crate::cluster::grpc::Channel;
use crate::model::listener::Address;
use crate::net::drain::Watch;
use crate::net::{self, ConnectOptions};

/// A lease is renewed so often.
const RENEW: Duration = Duration::from_secs(3);
/// The application is looked at so often.
const PROBE: Duration = Duration::from_millis(500);

/// What this proxy stands for.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Name of the instance.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Service.
    pub service: String,
    /// Service account.
    pub service_account: String,
    /// Address that others reach the sidecar at.
    pub address: String,
    /// Ports by name: `app`, `inbound`.
    pub ports: HashMap<String, u32>,
    /// Labels.
    pub labels: HashMap<String, String>,
    /// Every port of the address leads to the sidecar.
    pub captured: bool,
    /// Where the application listens.
    pub app: Address,
}

/// Register and renew until the proxy drains, then give the lease back.
///
/// `well` false takes the workload out of the endpoints, as `/healthcheck/fail` asks.
pub async fn run(workload: Workload, channel: Channel, drain: Watch, well: impl Fn() -> bool) {
    let mut client = WorkloadServiceClient::new(channel);
    let mut lease: Option<String> = None;
    let mut told = false;
    let mut since_renewal = RENEW;
    while !drain.is_draining() {
        let ready = well() && net::connect(&workload.app, &ConnectOptions::default()).await.is_ok();
        if since_renewal >= RENEW || ready != told {
            since_renewal = Duration::ZERO;
            lease = tell(&mut client, &workload, lease, ready).await;
            told = lease.is_some() && ready;
        }
        since_renewal += PROBE;
        tokio::select! {
            () = tokio::time::sleep(PROBE) => {}
            () = drain.draining() => {}
        }
    }
    if let Some(lease_id) = lease {
        let request = pb::DeregisterRequest { lease_id };
        let asked = client.deregister(request);
        let _ = tokio::time::timeout(Duration::from_secs(2), asked).await;
    }
}

/// Renew the lease, or get a new one. None: the control plane cannot be reached, or refused.
async fn tell(
    client: &mut WorkloadServiceClient<Channel>,
    workload: &Workload,
    lease: Option<String>,
    ready: bool,
) -> Option<String> {
    if let Some(lease_id) = lease {
        match client.renew(pb::RenewRequest { lease_id: lease_id.clone(), ready }).await {
            Ok(_) => return Some(lease_id),
            // It ran out: register again. Anything else may pass, and the lease may still hold.
            Err(status) if status.code() != Code::NotFound => return Some(lease_id),
            Err(_) => {}
        }
    }
    let request = pb::RegisterRequest { workload: Some(message(workload)), ready };
    match client.register(request).await {
        Ok(answer) => Some(answer.into_inner().lease_id),
        Err(status) => {
            tracing::warn!(code = ?status.code(), why = status.message(), "cannot register");
            None
        }
    }
}

fn message(workload: &Workload) -> pb::Workload {
    pb::Workload {
        name: workload.name.clone(),
        namespace: workload.namespace.clone(),
        service: workload.service.clone(),
        service_account: workload.service_account.clone(),
        address: workload.address.clone(),
        ports: workload.ports.clone(),
        labels: workload.labels.clone(),
        captured: workload.captured,
        weight: 1,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..pb::Workload::default()
    }
}
