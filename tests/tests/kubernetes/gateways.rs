//! Gateways, their routes and grants from the Kubernetes API, and what is said about them.

use http::Method;
use pillion_tests::backend::{Backend, Speaks};
use pillion_tests::ca::Ca;
use pillion_tests::client::{self, Ask};
use pillion_tests::kubernetes::Kubernetes;
use pillion_tests::mesh::{Beside, Sidecar, ask, reaches};
use pillion_tests::port::Port;
use pillion_tests::wait;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;

use super::world::{SHOP, World, proof};

const GATEWAY_API: &str = "gateway.networking.k8s.io";

fn object(version: &str, kind: &str, (namespace, name): (&str, &str), spec: Value) -> Value {
    json!({
        "apiVersion": format!("{GATEWAY_API}/{version}"), "kind": kind,
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    })
}

fn web(parents: Value, backend: Value) -> Value {
    let spec = json!({"parentRefs": parents, "rules": [{"backendRefs": [backend]}]});
    object("v1", "HTTPRoute", (SHOP, "web"), spec)
}

/// Waits until a condition is there with this status and reason.
async fn condition(
    find: impl Fn() -> Option<Value>,
    kind: &str,
    wanted: &str,
) -> anyhow::Result<()> {
    let last = std::cell::RefCell::new(Value::Null);
    let what = format!("{kind} is {wanted}");
    let found = wait::until(&what, || async {
        let conditions = find()?;
        *last.borrow_mut() = conditions.clone();
        let found = conditions.as_array()?.iter().find(|one| one["type"] == kind)?.clone();
        let says = format!("{} {}", found["status"].as_str()?, found["reason"].as_str()?);
        (says == wanted).then_some(())
    });
    found.await.map_err(|error| error.context(format!("{:#}", last.borrow())))
}

fn of_gateway(kubernetes: &Kubernetes) -> Option<Value> {
    Some(kubernetes.get("gateways", SHOP, "front")?["status"]["conditions"].clone())
}

fn of_parent(kubernetes: &Kubernetes, plural: &str, name: &str) -> Option<Value> {
    let route = kubernetes.get(plural, SHOP, name)?;
    let parents = route["status"]["parents"].as_array()?;
    let ours = parents.iter().find(|one| one["controllerName"] == "pillion.io/gateway-controller");
    Some(ours?["conditions"].clone())
}

/// Objects of a gateway with three listeners, in front of the shop.
fn front(kubernetes: &Kubernetes, [http, https, tcp]: &[Port; 3]) {
    kubernetes.apply(json!({
        "apiVersion": format!("{GATEWAY_API}/v1"), "kind": "GatewayClass",
        "metadata": {"name": "edge"}, "spec": {"controllerName": "pillion.io/gateway-controller"},
    }));
    let spec = json!({"gatewayClassName": "edge", "listeners": [
        {"name": "http", "port": http.number(), "protocol": "HTTP"},
        {"name": "https", "port": https.number(), "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "site", "namespace": "keys"}]}},
        {"name": "tcp", "port": tcp.number(), "protocol": "TCP"},
    ]});
    kubernetes.apply(object("v1", "Gateway", (SHOP, "front"), spec));
    let theirs = json!({"gatewayClassName": "theirs", "listeners": [{"oddity": true}]});
    kubernetes.apply(object("v1", "Gateway", (SHOP, "theirs"), theirs));
    let spec = json!({
        "parentRefs": [{"name": "front", "sectionName": "tcp"}],
        "rules": [{"backendRefs": [{"name": "raw", "port": 80}]}],
    });
    kubernetes.apply(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "raw", "namespace": SHOP},
        "spec": {"clusterIP": "None", "selector": {"app": "raw"},
            "ports": [{"port": 80, "appProtocol": "tcp"}]},
    }));
    kubernetes.apply(object("v1alpha2", "TCPRoute", (SHOP, "raw"), spec));
}

async fn proxy(world: &World, certificates: &std::path::Path) -> anyhow::Result<Sidecar> {
    let mut beside = Beside::gateway("front");
    beside.proof = Some(proof(&world.kubernetes, "front").await?);
    let folder = certificates.display().to_string();
    beside.more = ["--namespace", SHOP, "--certificate-dir", &folder].map(str::to_owned).into();
    world.mesh.sidecar(&beside).await
}

#[tokio::test]
async fn strangers_come_in_through_a_gateway_of_the_cluster() -> anyhow::Result<()> {
    let ports = [Port::reserve()?, Port::reserve()?, Port::reserve()?];
    let world = World::start().await?;
    let kubernetes = &world.kubernetes;
    front(kubernetes, &ports);
    let parents = json!([
        {"name": "front"}, {"name": "theirs"},
        {"group": "", "kind": "Service", "name": "catalog-v2"},
    ]);
    kubernetes.apply(web(parents, json!({"name": "catalog", "port": 80})));
    condition(|| of_gateway(kubernetes), "Accepted", "True ListenersNotValid").await?;
    condition(|| of_gateway(kubernetes), "Programmed", "False Pending").await?;
    let class =
        || Some(kubernetes.get("gatewayclasses", "", "edge")?["status"]["conditions"].clone());
    condition(class, "Accepted", "True Accepted").await?;

    // The certificate is where a Secret is mounted; its Secret is of a namespace that has to permit it.
    let folder = world.mesh.dir().join("certificates");
    std::fs::create_dir_all(folder.join("keys/site"))?;
    let ca = Ca::new("public")?;
    let files = ca.write(&folder, "site", &ca.leaf_for(&["site.test"])?)?;
    std::fs::rename(&files.chain, folder.join("keys/site/tls.crt"))?;
    std::fs::rename(&files.key, folder.join("keys/site/tls.key"))?;
    let _proxy = proxy(&world, &folder).await?;
    condition(|| of_gateway(kubernetes), "Programmed", "True Programmed").await?;
    reaches(ports[0].address(), "any.test", "catalog-v1").await?;
    assert!(ask(ports[1].address(), "site.test", "/").await.is_err(), "a key without a grant");
    let grant = json!({
        "from": [{"group": GATEWAY_API, "kind": "Gateway", "namespace": SHOP}],
        "to": [{"group": "", "kind": "Secret"}],
    });
    kubernetes.apply(object("v1beta1", "ReferenceGrant", ("keys", "gateways"), grant));
    condition(|| of_gateway(kubernetes), "Accepted", "True Accepted").await?;
    let trust = ca.client(None, &["http/1.1"])?;
    wait::until("the certificate is shown", || async {
        let mut secure = Ask::new(Method::GET, "/");
        (secure.host, secure.server_name) = ("site.test".to_owned(), "site.test".to_owned());
        secure.tls = Some(trust.clone());
        (client::send(ports[1].address(), &secure).await.ok()?.status == 200).then_some(())
    })
    .await?;

    // Each listener with what is attached to it.
    let listeners = &kubernetes.get("gateways", SHOP, "front").unwrap()["status"]["listeners"];
    let attached: Vec<_> = (0..3).map(|at| listeners[at]["attachedRoutes"].as_u64()).collect();
    assert_eq!(attached, [Some(1), Some(1), Some(1)], "{listeners:#}");
    condition(|| of_parent(kubernetes, "tcproutes", "raw"), "Accepted", "True Accepted").await?;
    let echo = Backend::start("raw", Speaks::Tcp).await?;
    let mut beside = Beside::new("raw", "v1", echo.address);
    beside.proof = Some(proof(kubernetes, "raw").await?);
    beside.more = ["--namespace", SHOP].map(str::to_owned).into();
    let _raw = world.mesh.sidecar(&beside).await?;
    wait::until("the bytes come through", || async {
        let mut stream = BufReader::new(TcpStream::connect(ports[2].address()).await.ok()?);
        let mut hello = String::new();
        stream.read_line(&mut hello).await.ok()?;
        (hello == "hello\n").then_some(())
    })
    .await?;

    // A gateway of somebody else's is none of our business, and none that is missing.
    assert!(kubernetes.get("gateways", SHOP, "theirs").unwrap()["status"].is_null());
    let problems = world.mesh.status()?["problems"].to_string();
    assert!(!problems.contains("Gateway"), "{problems}");
    assert!(!world.mesh.log().contains("there is no Gateway"), "{}", world.mesh.log());
    Ok(())
}

#[tokio::test]
async fn another_namespaces_service_needs_its_grant() -> anyhow::Result<()> {
    let ports = [Port::reserve()?, Port::reserve()?, Port::reserve()?];
    let world = World::start().await?;
    let kubernetes = &world.kubernetes;
    kubernetes.apply(json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "other", "labels": {"pillion.io/inject": "enabled"}},
    }));
    kubernetes.apply(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "far", "namespace": "other"},
        "spec": {"clusterIP": "None", "ports": [{"port": 80, "appProtocol": "http"}]},
    }));
    front(kubernetes, &ports);
    let far = json!({"name": "far", "namespace": "other", "port": 80});
    kubernetes.apply(web(json!([{"name": "front", "sectionName": "http"}]), far));
    let route = || of_parent(kubernetes, "httproutes", "web");
    condition(route, "ResolvedRefs", "False RefNotPermitted").await?;
    condition(route, "Accepted", "True Accepted").await?;
    let _proxy = proxy(&world, world.mesh.dir()).await?;
    let at = ports[0].address();
    let status = |wanted: u16| async move {
        wait::until(&format!("{wanted} is answered"), || async {
            let answer = ask(at, "any.test", "/").await.ok()?;
            (answer.status == wanted).then_some(())
        })
        .await
    };
    status(500).await?;
    let grant = json!({
        "from": [{"group": GATEWAY_API, "kind": "HTTPRoute", "namespace": SHOP}],
        "to": [{"group": "", "kind": "Service", "name": "far"}],
    });
    kubernetes.apply(object("v1beta1", "ReferenceGrant", ("other", "shop"), grant));
    condition(route, "ResolvedRefs", "True ResolvedRefs").await?;
    // Nobody serves it, but it may be asked.
    status(503).await?;
    kubernetes.delete("referencegrants", "other", "shop");
    condition(route, "ResolvedRefs", "False RefNotPermitted").await?;
    status(500).await
}

#[tokio::test]
async fn namespaces_are_chosen_by_their_labels_and_the_gateway_says_where_it_is()
-> anyhow::Result<()> {
    let world = World::start().await?;
    let kubernetes = &world.kubernetes;
    let namespace = |labels: Value| {
        kubernetes.apply(json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "guests", "labels": labels},
        }));
    };
    namespace(json!({"team": "b"}));
    let port = Port::reserve()?;
    let allowed = json!({"namespaces": {"from": "Selector", "selector": {
        "matchLabels": {"team": "a"},
        "matchExpressions": [{"key": "closed", "operator": "DoesNotExist"}],
    }}});
    let listeners = json!([{"name": "http", "port": port.number(), "protocol": "HTTP", "allowedRoutes": allowed}]);
    let spec = json!({"gatewayClassName": "pillion", "listeners": listeners});
    kubernetes.apply(object("v1", "Gateway", (SHOP, "front"), spec));
    let spec = json!({
        "parentRefs": [{"name": "front", "namespace": SHOP}],
        "rules": [{"filters": [{"type": "RequestRedirect", "requestRedirect": {"hostname": "new.test"}}]}],
    });
    kubernetes.apply(object("v1", "HTTPRoute", ("guests", "web"), spec));
    let route = || {
        let route = kubernetes.get("httproutes", "guests", "web")?;
        Some(route["status"]["parents"][0]["conditions"].clone())
    };
    condition(route, "Accepted", "False NotAllowedByListeners").await?;
    namespace(json!({"team": "a"}));
    condition(route, "Accepted", "True Accepted").await?;
    namespace(json!({"team": "a", "closed": ""}));
    condition(route, "Accepted", "False NotAllowedByListeners").await?;

    let addresses = |wanted: Value| async move {
        wait::until(&format!("the addresses are {wanted}"), || async {
            let found = &kubernetes.get("gateways", SHOP, "front")?["status"]["addresses"];
            (*found == wanted).then_some(())
        })
        .await
    };
    kubernetes.apply(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "front-1", "namespace": SHOP,
            "labels": {"app": "front", "gateway.networking.k8s.io/gateway-name": "front"}},
        "spec": {"containers": [{"name": "proxy"}]},
    }));
    kubernetes.set_status(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "front-1", "namespace": SHOP},
        "status": {"phase": "Running", "podIP": "10.0.0.7",
            "conditions": [{"type": "Ready", "status": "True"}]},
    }));
    addresses(json!([{"type": "IPAddress", "value": "10.0.0.7"}])).await?;
    kubernetes.apply(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "front", "namespace": SHOP},
        "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.9", "selector": {"app": "front"},
            "ports": [{"port": 80}]},
    }));
    addresses(json!([])).await?;
    kubernetes.set_status(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "front", "namespace": SHOP},
        "status": {"loadBalancer": {"ingress": [{"hostname": "front.test"}]}},
    }));
    addresses(json!([{"type": "Hostname", "value": "front.test"}])).await
}
