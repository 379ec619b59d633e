//! Type URLs of the resources that travel over xDS.

/// `envoy.config.listener.v3.Listener` (LDS).
pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// `envoy.config.route.v3.RouteConfiguration` (RDS).
pub const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// `envoy.config.route.v3.ScopedRouteConfiguration` (SRDS); not supported.
pub const SCOPED_ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration";
/// `envoy.config.route.v3.VirtualHost` (VHDS); not supported.
pub const VIRTUAL_HOST: &str = "type.googleapis.com/envoy.config.route.v3.VirtualHost";
/// `envoy.config.cluster.v3.Cluster` (CDS).
pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
/// `envoy.config.endpoint.v3.ClusterLoadAssignment` (EDS).
pub const ENDPOINT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
/// `envoy.extensions.transport_sockets.tls.v3.Secret` (SDS).
pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// `envoy.config.core.v3.TypedExtensionConfig` (ECDS).
pub const EXTENSION_CONFIG: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
/// `envoy.service.runtime.v3.Runtime` (RTDS); not supported.
pub const RUNTIME: &str = "type.googleapis.com/envoy.service.runtime.v3.Runtime";
/// `envoy.service.discovery.v3.Resource`, the wrapper with name, version and TTL.
pub const RESOURCE: &str = "type.googleapis.com/envoy.service.discovery.v3.Resource";

#[cfg(test)]
mod tests {
    use prost::Name;

    use crate::envoy;

    #[test]
    fn constants_are_the_urls_of_the_generated_types() {
        use envoy::config::{cluster, core, endpoint, listener, route};
        let tls = envoy::extensions::transport_sockets::tls::v3::Secret::type_url();
        assert_eq!(super::LISTENER, listener::v3::Listener::type_url());
        assert_eq!(super::ROUTE, route::v3::RouteConfiguration::type_url());
        assert_eq!(super::SCOPED_ROUTE, route::v3::ScopedRouteConfiguration::type_url());
        assert_eq!(super::VIRTUAL_HOST, route::v3::VirtualHost::type_url());
        assert_eq!(super::CLUSTER, cluster::v3::Cluster::type_url());
        assert_eq!(super::ENDPOINT, endpoint::v3::ClusterLoadAssignment::type_url());
        assert_eq!(super::SECRET, tls);
        assert_eq!(super::EXTENSION_CONFIG, core::v3::TypedExtensionConfig::type_url());
        assert_eq!(super::RESOURCE, envoy::service::discovery::v3::Resource::type_url());
    }
}
