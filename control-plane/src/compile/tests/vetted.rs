//! The proxy's own translation takes what we compile for it.

use pillion_proxy::xds::kind::Kind;
use pillion_proxy::xds::translate;

use super::*;

const EVERYTHING: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: everything}
spec:
  parentRefs: [{group: "", kind: Service, name: catalog}]
  rules:
  - matches:
    - {path: {type: Exact, value: /a}, method: GET}
    - {path: {value: /b}, headers: [{name: x, type: RegularExpression, value: "1|2"}]}
    - {path: {type: RegularExpression, value: "/c/[0-9]+"}, queryParams: [{name: q, value: "1"}]}
    filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: "1%"}], add: [{name: b, value: ""}], remove: [c]}}
    - {type: RequestMirror, requestMirror: {backendRef: {name: catalog-v2, port: 80}, percent: 5}}
    backendRefs:
    - {name: catalog, port: 80, weight: 9}
    - {name: catalog-v2, port: 80, filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: v, value: "2"}]}}]}
    timeouts: {request: 1s, backendRequest: 500ms}
    retry: {codes: [503], attempts: 1, backoff: 10ms}
  - matches: [{path: {value: /old}}]
    filters: [{type: URLRewrite, urlRewrite: {hostname: a.b, path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]
    backendRefs: [{name: catalog, port: 80}]
  - matches: [{path: {value: /full}}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /new}}}]
    backendRefs: [{name: catalog, port: 80, weight: 1}, {name: x, group: other.io, kind: Bucket, weight: 1}]
  - matches: [{path: {value: /redirect}}]
    filters: [{type: RequestRedirect, requestRedirect: {scheme: https, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}, statusCode: 308}}]
  - matches: [{path: {value: /nowhere}}]
    backendRefs: []
---
apiVersion: pillion.io/v1alpha1
kind: TrafficPolicy
metadata: {name: ring}
spec:
  targetRefs: [{kind: Service, name: catalog}]
  loadBalancer: {type: RingHash, hashOn: {cookie: {name: session, ttl: 0s}}}
  circuitBreaker: {maxConnections: 1, maxPendingRequests: 2, maxRequests: 3, maxRetries: 4}
  outlierDetection: {consecutive5xx: 5, consecutiveGatewayErrors: 3, consecutiveLocalOriginFailures: 2, interval: 1s, maxEjectionTime: 60s}
  healthCheck: {http: {path: /healthz}, interval: 5s}
  retry: {on: [5xx, unavailable, retriable-4xx], attempts: 3, perTryTimeout: 1s, codes: [429]}
  timeout: {request: 3s, idle: 10s, connect: 1s}
---
apiVersion: pillion.io/v1alpha1
kind: TrafficPolicy
metadata: {name: random}
spec: {targetRefs: [{kind: Service, name: cart}], loadBalancer: {type: Random}, healthCheck: {grpc: {service: cart}}, retry: {attempts: 0}}
---
apiVersion: pillion.io/v1alpha1
kind: TrafficPolicy
metadata: {name: maglev}
spec: {targetRefs: [{kind: Service, name: catalog-v2}], loadBalancer: {type: Maglev, hashOn: {sourceIp: true}}, healthCheck: {tcp: {}}}
---
apiVersion: pillion.io/v1alpha1
kind: Workload
metadata: {name: db-1, labels: {app: db}}
spec: {address: "fd00::1", ports: {pg: 5433}}
"#;

fn mesh_with(mtls: &str, format: &str) -> String {
    mesh(mtls).replace(
        "}\n---",
        &format!(
            ", tracing: {{otlp: \"http://otel.local\", tail: {{slowerThan: 1s}}}}, accessLog: {{format: {format}}}}}\n---"
        ),
    )
}

#[test]
fn our_proxy_takes_every_resource() {
    for (mtls, format) in [("Strict", "Json"), ("Permissive", "Text")] {
        let all = workloads([registered("catalog", 1, &[]), registered("db", 2, &[])]);
        let world = World::new(intent(&format!("{}{EVERYTHING}", mesh_with(mtls, format))), all);
        for service in ["catalog", "cart", "db"] {
            let node = with_sidecar(sidecar(service), |sidecar| {
                sidecar.upstream_ports = [
                    ("db.default:5432".to_owned(), loopback(9001)),
                    ("catalog.default:80".to_owned(), Place::Pipe("/run/catalog".to_owned())),
                ]
                .into();
                sidecar.interception = match service {
                    "catalog" => Interception::Redirect,
                    "cart" => Interception::Tproxy,
                    _ => Interception::None,
                };
            });
            let set = world.for_node(&node);
            assert!(set.len() > 15);
            for resource in set.iter() {
                let kind = Kind::of(resource.kind.type_url()).expect("a kind that it knows");
                let (name, made) = translate::resource(kind, &resource.body);
                let refused = made.err().unwrap_or_default();
                assert!(
                    refused.is_empty(),
                    "{mtls} {} {}: {refused:#?}",
                    kind.type_url(),
                    resource.name
                );
                assert_eq!(name.as_deref(), Some(&*resource.name));
                assert_eq!(translate::unknown_fields(kind, &resource.body), Vec::<String>::new());
            }
        }
    }
}
