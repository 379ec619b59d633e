//! The bootstrap of a sidecar, made of flags: one static cluster, the control plane, over ADS.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::address;
use super::flags::{Flags, Interception, Sidecar};
use crate::model::listener::Address;
use crate::tls::join::{JoinToken, Proof, is_jwt};
use crate::xds::identity::Joining;
use crate::xds::register::Workload;

/// Name of the control plane's static cluster.
pub(super) const CLUSTER: &str = "pillion-control-plane";

/// Label of a gateway's instances (Gateway API): its name.
const GATEWAY_LABEL: &str = "gateway.networking.k8s.io/gateway-name";

/// A sidecar as its flags describe it.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Envoy v3 bootstrap.
    pub(super) bootstrap: Value,
    /// Where others reach it.
    pub(super) address: IpAddr,
    /// How it gets its identity.
    pub(super) joining: Joining,
    /// Name of this instance.
    pub(super) instance: String,
    /// What it registers. None: it is only a client.
    pub(super) workload: Option<Workload>,
}

/// Make the plan of a sidecar.
///
/// # Errors
/// A flag is missing or cannot be used; the text names it.
pub(super) fn plan(flags: &Flags) -> Result<Plan, String> {
    let sidecar = &flags.sidecar;
    let control_plane = sidecar
        .control_plane
        .as_deref()
        .ok_or("expected -c FILE, or --control-plane ADDRESS for a sidecar")?;
    let service = sidecar.gateway.as_deref().or(sidecar.service.as_deref());
    let service = service.ok_or("--service NAME is missing, or --gateway NAME")?;
    let (tls, authority) = authority(control_plane)?;
    let proof = proof(sidecar, tls)?;
    let own = match sidecar.address {
        Some(own) => own,
        None => address::towards(&authority),
    };
    let account = sidecar.service_account.as_deref().unwrap_or(service);
    let name = sidecar.name.clone().unwrap_or_else(|| instance(service));
    let workload = match &sidecar.gateway {
        Some(gateway) => Some(of_gateway(sidecar, gateway, (account, &name), own)),
        None => sidecar.main_port().map(|app| Workload {
            name: name.clone(),
            namespace: sidecar.namespace.clone(),
            service: service.to_owned(),
            service_account: account.to_owned(),
            address: own.to_string(),
            ports: ports(sidecar, app),
            labels: sidecar.label_map(),
            captured: sidecar.interception != Interception::None,
            app: match sidecar.app_socket() {
                Some(path) => Address::Pipe(path.to_owned()),
                None => Address::Socket(SocketAddr::from(([127, 0, 0, 1], app))),
            },
        }),
    };
    Ok(Plan {
        address: own,
        bootstrap: bootstrap(flags, (service, account, &name), own, (tls, &authority)),
        joining: Joining {
            namespace: sidecar.namespace.clone(),
            service_account: account.to_owned(),
            authority,
            tls,
            proof,
        },
        workload,
        instance: name,
    })
}

/// A name that no other instance has, on whatever machine: in containers process ids are all alike.
fn instance(service: &str) -> String {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy().to_ascii_lowercase();
    let host = host.split('.').next().unwrap_or_default();
    let fits = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let host: String = host.chars().map(fits).collect();
    format!("{service}-{}-{}", host.trim_matches('-'), std::process::id())
}

/// A gateway belongs to no service: who sends through it finds it by its label.
fn of_gateway(
    sidecar: &Sidecar,
    gateway: &str,
    (account, name): (&str, &str),
    own: IpAddr,
) -> Workload {
    let mut labels = sidecar.label_map();
    labels.insert(GATEWAY_LABEL.to_owned(), gateway.to_owned());
    Workload {
        name: name.to_owned(),
        namespace: sidecar.namespace.clone(),
        service: String::new(),
        service_account: account.to_owned(),
        address: own.to_string(),
        ports: [("inbound".to_owned(), u32::from(sidecar.inbound_port))].into(),
        labels,
        captured: false,
        app: Address::Socket(SocketAddr::new(own, sidecar.inbound_port)),
    }
}

fn ports(sidecar: &Sidecar, app: u16) -> HashMap<String, u32> {
    let fixed = [("app".to_owned(), app), ("inbound".to_owned(), sidecar.inbound_port)];
    let all = sidecar.named_ports().into_iter().chain(fixed);
    all.map(|(name, port)| (name, u32::from(port))).collect()
}

/// Whether TLS is spoken, and `host:port`.
fn authority(text: &str) -> Result<(bool, String), String> {
    let (tls, authority) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        (None, None) => (true, text),
    };
    let authority = authority.trim_end_matches('/');
    let Some((host, _)) = authority.rsplit_once(':') else {
        return Err(format!("--control-plane {text}: expected HOST:PORT"));
    };
    let loopback = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    if !tls && !loopback {
        return Err(format!("--control-plane {text}: plain http:// is for loopback only"));
    }
    Ok((tls, authority.to_owned()))
}

/// What kind of token it is can be seen; one of a service account is read again at every use.
fn proof(sidecar: &Sidecar, tls: bool) -> Result<Proof, String> {
    let file = sidecar.token_file.as_ref().ok_or("--token-file FILE is missing")?;
    let text = std::fs::read_to_string(file)
        .map(Zeroizing::new)
        .map_err(|error| format!("--token-file {}: {error}", file.display()))?;
    if !is_jwt(text.trim()) {
        let token = JoinToken::parse(text.trim(), &file.display().to_string());
        return token.map(Proof::Token).map_err(|error| error.to_string());
    }
    let roots = sidecar.root_ca_file.clone();
    if tls && roots.is_none() {
        return Err("--root-ca-file FILE is missing: a service-account token does not say which root the control plane has".to_owned());
    }
    Ok(Proof::Vouched { token: file.clone(), roots })
}

fn bootstrap(
    flags: &Flags,
    (service, account, name): (&str, &str, &str),
    own: IpAddr,
    (tls, authority): (bool, &str),
) -> Value {
    let sidecar = &flags.sidecar;
    let namespace = &sidecar.namespace;
    let address = own.to_string();
    let mut metadata = json!({
        "PROXY": "pillion",
        "VERSION": env!("CARGO_PKG_VERSION"),
        "SERVICE": service,
        "NAMESPACE": namespace,
        "SERVICE_ACCOUNT": account,
        "ADDRESS": address,
        "INBOUND_PORT": sidecar.inbound_port.to_string(),
        "OUTBOUND_PORT": sidecar.outbound_port.to_string(),
        "INSTANCE": name,
        "LABELS": sidecar.label_map(),
        "INTERCEPTION": sidecar.interception.as_str(),
    });
    let kind = if sidecar.gateway.is_some() { "gateway" } else { "sidecar" };
    if let Some(gateway) = &sidecar.gateway {
        metadata["GATEWAY"] = gateway.as_str().into();
        if let Some(folder) = &sidecar.certificate_dir {
            metadata["CERTIFICATE_DIR"] = folder.display().to_string().into();
        }
    } else if let Some(app) = sidecar.main_port() {
        metadata["APP_PORT"] = app.to_string().into();
        metadata["APP_PORTS"] = json!(texts(sidecar.named_ports()));
    }
    if let Some(path) = sidecar.app_socket() {
        metadata["APP_SOCKET"] = path.display().to_string().into();
    }
    if !sidecar.upstreams.is_empty() {
        metadata["UPSTREAM_PORTS"] = json!(texts(sidecar.upstreams.iter().cloned()));
    }
    // An empty variable of the environment is how a compose file says nothing.
    if let Some(otlp) = sidecar.otlp.as_deref().filter(|otlp| !otlp.is_empty()) {
        metadata["OTLP_ENDPOINT"] = otlp.into();
    }
    json!({
        "node": {
            "id": format!("{kind}~{address}~{name}.{namespace}~{namespace}.svc.cluster.local"),
            "cluster": format!("{service}.{namespace}"),
            "metadata": metadata,
        },
        "admin": {"address": {"socket_address":
            {"address": "127.0.0.1", "port_value": flags.admin_port}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC", "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": CLUSTER, "authority": authority}}],
            },
            "lds_config": {"ads": {}, "resource_api_version": "V3"},
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
        },
        "static_resources": {"clusters": [cluster(tls, authority)]},
    })
}

fn texts<V: ToString>(map: impl IntoIterator<Item = (String, V)>) -> HashMap<String, String> {
    map.into_iter().map(|(name, value)| (name, value.to_string())).collect()
}

fn cluster(tls: bool, authority: &str) -> Value {
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "15012"));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = port.parse::<u16>().unwrap_or(15012);
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let mut cluster = json!({
        "name": CLUSTER,
        "type": "STRICT_DNS",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": CLUSTER, "endpoints": [{"lb_endpoints": [{"endpoint":
            {"address": {"socket_address": {"address": host, "port_value": port}}}}]}]},
        "typed_extension_protocol_options": {
            options: {
                "@type": format!("type.googleapis.com/{options}"),
                "explicit_http_config": {"http2_protocol_options":
                    {"connection_keepalive": {"interval": "10s", "timeout": "5s"}}},
            },
        },
    });
    if tls {
        cluster["transport_socket"] = transport_socket();
    }
    cluster
}

/// Our own identity towards the control plane's, whose name is fixed.
fn transport_socket() -> Value {
    let context = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
    let name = "spiffe://[^/]+/ns/pillion-system/sa/control-plane";
    json!({
        "name": "tls",
        "typed_config": {
            "@type": format!("type.googleapis.com/{context}"),
            "common_tls_context": {
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
                "alpn_protocols": ["h2"],
                "tls_certificate_sds_secret_configs": [{"name": "default"}],
                "combined_validation_context": {
                    "default_validation_context": {"match_typed_subject_alt_names":
                        [{"san_type": "URI", "matcher": {"safe_regex": {"regex": name}}}]},
                    "validation_context_sds_secret_config": {"name": "ROOTCA"},
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::xds::translate::bootstrap::bootstrap as compile;

    fn flags(dir: &std::path::Path, control_plane: &str) -> Flags {
        let token = dir.join("token");
        let text = format!("pillion1.{}.{}", "A".repeat(43), "A".repeat(43));
        std::fs::write(&token, text).unwrap();
        let token = token.to_str().unwrap();
        let fixed = ["pillion-proxy", "--service", "catalog", "--app", "8080", "--label", "v=1"];
        let given = ["--control-plane", control_plane, "--token-file", token];
        Flags::parse_from(fixed.into_iter().chain(given))
    }

    #[test]
    fn the_flags_of_a_sidecar_make_a_bootstrap_that_compiles() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(&flags(dir.path(), "127.0.0.1:15012")).unwrap();
        let text = plan.bootstrap.to_string();
        let message = pillion_xds::json::from_text(&text).unwrap();
        let compiled = compile(&message).unwrap();
        assert_eq!(compiled.node.cluster, "catalog.default");
        assert_eq!(&*compiled.dynamic.ads.unwrap().service.cluster, CLUSTER);
        assert_eq!(plan.workload.as_ref().unwrap().ports["app"], 8080);
        assert!(plan.joining.tls);
        assert_eq!(plan.workload.unwrap().address, "127.0.0.1", "as the control plane is there");
    }

    #[test]
    fn an_address_that_is_said_is_taken_whatever_the_way_to_the_control_plane() {
        let dir = tempfile::tempdir().unwrap();
        let mut flags = flags(dir.path(), "127.0.0.1:15012");
        flags.sidecar.address = Some([10, 1, 2, 3].into());
        let plan = plan(&flags).unwrap();
        assert_eq!(plan.bootstrap["node"]["metadata"]["ADDRESS"], "10.1.2.3");
        assert_eq!(plan.workload.unwrap().address, "10.1.2.3");
    }

    #[test]
    fn a_service_accounts_token_needs_a_root() {
        let dir = tempfile::tempdir().unwrap();
        let mut flags = flags(dir.path(), "127.0.0.1:15012");
        std::fs::write(flags.sidecar.token_file.as_ref().unwrap(), "eyJh.eyJz.c2ln\n").unwrap();
        let error = plan(&flags).unwrap_err();
        assert!(error.starts_with("--root-ca-file"), "{error}");
        flags.sidecar.root_ca_file = Some(dir.path().join("root.pem"));
        assert!(plan(&flags).unwrap().joining.proof.is_vouched());
    }

    #[test]
    fn plain_text_is_for_loopback_only() {
        let dir = tempfile::tempdir().unwrap();
        assert!(plan(&flags(dir.path(), "http://127.0.0.1:15010")).is_ok());
        let error = plan(&flags(dir.path(), "http://10.0.0.1:15010")).unwrap_err();
        assert!(error.contains("loopback only"), "{error}");
        let error = plan(&flags(dir.path(), "nonsense")).unwrap_err();
        assert!(error.contains("HOST:PORT"), "{error}");
    }
}
