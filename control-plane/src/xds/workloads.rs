//! `pillion.v1.WorkloadService`: sidecars announce the workload beside them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pillion_xds::pillion::v1 as proto;
use pillion_xds::pillion::v1::workload_service_server::{WorkloadService, WorkloadServiceServer};
use tonic::{Request, Response, Status};

use crate::identity::{Caller, SpiffeId};
use crate::intent::{Locality, Name, Workload};

/// Name under which a sidecar announces its own inbound port.
const SIDECAR_PORT: &str = "inbound";
/// Name under which it announces the application's only port.
const APP_PORT: &str = "app";
/// Largest weight, as in a written `Workload`.
const MAX_WEIGHT: u32 = 1_000_000;
/// Most labels and ports of one workload.
const MAX_ENTRIES: usize = 256;
/// Longest text of a workload, in bytes.
const MAX_TEXT: usize = 256;

/// Whoever keeps the registered workloads.
#[tonic::async_trait]
pub trait Registrar: Send + Sync + 'static {
    /// Registers a workload, or replaces the registration of the same name. `None`: there is no room
    /// for another one.
    async fn register(&self, workload: Workload) -> Option<Lease>;

    /// Prolongs a lease. `None`: it is unknown or over.
    async fn renew(&self, lease: &str, ready: bool) -> Option<Duration>;

    /// Ends a lease.
    async fn deregister(&self, lease: &str);

    /// The workload that a lease is for.
    async fn workload(&self, lease: &str) -> Option<Arc<Workload>>;
}

/// A lease that was given.
#[derive(Clone, PartialEq, Eq)]
pub struct Lease {
    /// What the sidecar shows to prolong or end it. A secret.
    pub id: String,
    /// How long it lives without being renewed.
    pub ttl: Duration,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

/// The service over a registrar. The caller of a request is a [`Caller`] in its extensions: a
/// workload may only announce its own identity, a holder of the join token any.
pub struct WorkloadApi {
    registrar: Arc<dyn Registrar>,
}

impl WorkloadApi {
    /// The service over `registrar`.
    #[must_use]
    pub fn new(registrar: Arc<dyn Registrar>) -> Self {
        Self { registrar }
    }

    /// The service as a server takes it.
    #[must_use]
    pub fn into_server(self) -> WorkloadServiceServer<Self> {
        WorkloadServiceServer::new(self)
    }

    /// Checks that `caller` may speak for the workload of a lease; an unknown lease is anybody's.
    async fn check_lease(&self, caller: Option<Caller>, lease: &str) -> Result<(), Status> {
        match self.registrar.workload(lease).await {
            Some(workload) => check(caller, &workload),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for WorkloadApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkloadApi(..)")
    }
}

#[tonic::async_trait]
impl WorkloadService for WorkloadApi {
    async fn register(
        &self,
        request: Request<proto::RegisterRequest>,
    ) -> Result<Response<proto::RegisterResponse>, Status> {
        let caller = caller_of(&request);
        let message = request.into_inner();
        let workload = message
            .workload
            .ok_or_else(|| "workload: is missing".to_owned())
            .and_then(|workload| read(workload, message.ready))
            .map_err(Status::invalid_argument)?;
        check(caller, &workload)?;
        let workload_id = workload.name.to_string();
        tracing::info!(workload = %workload.name, address = %workload.address, "registers");
        let lease = self.registrar.register(workload).await.ok_or_else(|| {
            Status::resource_exhausted("the control plane has no room for another workload")
        })?;
        Ok(Response::new(proto::RegisterResponse {
            workload_id,
            lease_id: lease.id,
            lease_ttl: duration(lease.ttl),
        }))
    }

    async fn renew(
        &self,
        request: Request<proto::RenewRequest>,
    ) -> Result<Response<proto::RenewResponse>, Status> {
        let caller = caller_of(&request);
        let message = request.into_inner();
        self.check_lease(caller, &message.lease_id).await?;
        let ttl = self.registrar.renew(&message.lease_id, message.ready).await;
        let ttl = ttl.ok_or_else(|| Status::not_found("the lease ran out: register again"))?;
        Ok(Response::new(proto::RenewResponse { lease_ttl: duration(ttl) }))
    }

    async fn deregister(
        &self,
        request: Request<proto::DeregisterRequest>,
    ) -> Result<Response<proto::DeregisterResponse>, Status> {
        let caller = caller_of(&request);
        let message = request.into_inner();
        self.check_lease(caller, &message.lease_id).await?;
        self.registrar.deregister(&message.lease_id).await;
        Ok(Response::new(proto::DeregisterResponse {}))
    }
}

fn caller_of<T>(request: &Request<T>) -> Option<Caller> {
    request.extensions().get::<Caller>().cloned()
}

fn check(caller: Option<Caller>, workload: &Workload) -> Result<(), Status> {
    let is_own = |id: &SpiffeId| {
        id.namespace() == workload.name.namespace
            && id.service_account() == workload.service_account
    };
    match caller {
        Some(Caller::TokenHolder) => Ok(()),
        Some(Caller::Workload(id)) if is_own(&id) => Ok(()),
        Some(Caller::Workload(id)) => Err(Status::permission_denied(format!(
            "{id} may not speak for a workload of namespace {:?}, service account {:?}",
            workload.name.namespace, workload.service_account,
        ))),
        Some(Caller::Nobody(why)) => Err(Status::unauthenticated(why)),
        Some(Caller::Local) | None => {
            Err(Status::unauthenticated("a join token or a client certificate is needed"))
        }
    }
}

/// A registration as intent; the error names the field and what was expected.
fn read(workload: proto::Workload, ready: bool) -> Result<Workload, String> {
    let name =
        Name::new(text("namespace", or_default(workload.namespace))?, text("name", workload.name)?);
    let mut ports = BTreeMap::new();
    for (name, number) in workload.ports {
        let number = u16::try_from(number).ok().filter(|number| *number != 0).ok_or_else(|| {
            format!("workload.ports[{name:?}]: {number} is no port: expected 1 to 65535")
        })?;
        ports.insert(text("ports", name)?, number);
    }
    let mut labels: BTreeMap<String, String> = workload.labels.into_iter().collect();
    if ports.len() > MAX_ENTRIES || labels.len() > MAX_ENTRIES {
        return Err(format!("workload: more than {MAX_ENTRIES} ports or labels"));
    }
    if !workload.version.is_empty() {
        labels.entry("version".to_owned()).or_insert(workload.version);
    }
    let address = workload.address.parse().map_err(|_| {
        "workload.address: expected an IPv4 or IPv6 address that peers can reach".to_owned()
    })?;
    let service = (!workload.service.is_empty()).then_some(workload.service);
    let locality = workload.locality.unwrap_or_default();
    Ok(Workload {
        name,
        labels,
        service: service.map(|service| text("service", service)).transpose()?,
        address,
        sidecar_port: ports.remove(SIDECAR_PORT),
        app_port: ports.remove(APP_PORT),
        ports,
        service_account: text("service_account", or_default(workload.service_account))?,
        locality: Locality {
            region: locality.region,
            zone: locality.zone,
            sub_zone: locality.sub_zone,
        },
        weight: workload.weight.clamp(1, MAX_WEIGHT),
        ready,
        captured: workload.captured,
        open_ports: Vec::new(),
    })
}

fn or_default(text: String) -> String {
    if text.is_empty() { "default".to_owned() } else { text }
}

/// A name: what SPIFFE, DNS and metric labels can carry.
fn text(field: &str, value: String) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
    if value.is_empty() || value.len() > MAX_TEXT || !value.chars().all(allowed) {
        return Err(format!(
            "workload.{field}: {value:?} is no name: expected lower-case letters, digits, '-', '.' or '_'"
        ));
    }
    Ok(value)
}

fn duration(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn announced() -> proto::Workload {
        proto::Workload {
            name: "catalog-1".to_owned(),
            namespace: String::new(),
            service: "catalog".to_owned(),
            service_account: "catalog".to_owned(),
            address: "127.0.0.1".to_owned(),
            ports: [("inbound", 15006), ("app", 8080), ("admin", 9000)]
                .map(|(name, port)| (name.to_owned(), port))
                .into(),
            version: "v2".to_owned(),
            ..proto::Workload::default()
        }
    }

    #[test]
    fn an_announcement_becomes_a_workload() {
        let workload = read(announced(), true).unwrap();
        assert_eq!(workload.name, Name::new("default", "catalog-1"));
        assert_eq!((workload.sidecar_port, workload.app_port), (Some(15006), Some(8080)));
        assert_eq!(workload.ports, [("admin".to_owned(), 9000)].into());
        assert_eq!(workload.labels, [("version".to_owned(), "v2".to_owned())].into());
        assert_eq!((workload.weight, workload.ready), (1, true));
    }

    #[test]
    fn bad_fields_are_named() {
        let bad = |change: fn(&mut proto::Workload)| {
            let mut workload = announced();
            change(&mut workload);
            read(workload, true).unwrap_err()
        };
        assert!(bad(|w| w.address = "localhost".to_owned()).contains("workload.address"));
        assert!(bad(|w| w.name = "A/B".to_owned()).contains("workload.name"));
        assert!(
            bad(|w| {
                w.ports.insert("x".to_owned(), 70_000);
            })
            .contains("ports[\"x\"]")
        );
    }

    #[test]
    fn a_workload_may_announce_itself_only() {
        let workload = read(announced(), true).unwrap();
        let id = |account: &str| {
            Some(Caller::Workload(format!("spiffe://td/ns/default/sa/{account}").parse().unwrap()))
        };
        let code = |caller| check(caller, &workload).map_err(|status| status.code());
        assert_eq!(code(id("catalog")), Ok(()));
        assert_eq!(code(Some(Caller::TokenHolder)), Ok(()));
        assert_eq!(code(id("front")), Err(Code::PermissionDenied));
        assert_eq!(code(Some(Caller::Local)), Err(Code::Unauthenticated));
        assert_eq!(code(None), Err(Code::Unauthenticated));
    }
}
