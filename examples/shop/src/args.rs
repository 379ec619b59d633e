use http::Uri;

/// What a service of the shop is told when it starts.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Which service this process is.
    #[arg(value_enum)]
    pub service: Service,
    /// The port on 127.0.0.1; 0 lets the system choose, and the first line on stdout says which.
    #[arg(long, env = "PORT", default_value_t = 0)]
    pub port: u16,
    /// The version that the answers name. `catalog` answers in another shape as `v2`.
    #[arg(id = "app-version", long, default_value = "v1")]
    pub version: String,
    /// This instance's own name in its answers; default: the service's name.
    #[arg(long, env = "SHOP_INSTANCE")]
    pub instance: Option<String>,
    /// The sidecar's outbound port, as `http://127.0.0.1:15001`. Without it every URL is dialled as it stands.
    #[arg(long, env = "MESH_PROXY")]
    pub mesh_proxy: Option<Uri>,
    /// Where `web` finds the catalog.
    #[arg(long, env = "CATALOG_URL", default_value = "http://catalog.default")]
    pub catalog_url: Uri,
    /// Where `web` finds the cart.
    #[arg(long, env = "CART_URL", default_value = "http://cart.default")]
    pub cart_url: Uri,
    /// Where `web` finds the reviews.
    #[arg(long, env = "REVIEWS_URL", default_value = "http://reviews.default")]
    pub reviews_url: Uri,
    /// Where `cart` finds the prices (gRPC).
    #[arg(long, env = "PRICING_URL", default_value = "http://pricing.default:80")]
    pub pricing_url: Uri,
    /// Waits this many milliseconds before every answer, to play a slow service.
    #[arg(long, env = "SHOP_DELAY_MS", default_value_t = 0)]
    pub delay_ms: u64,
    /// Answers 500 to this share of the requests, in percent, to play a sick service.
    #[arg(long, env = "SHOP_FAIL_PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub fail_percent: u8,
}

impl Args {
    /// The settings of a service that nothing is told but what it is.
    pub fn new(service: Service) -> Self {
        Self {
            service,
            port: 0,
            version: "v1".into(),
            instance: None,
            mesh_proxy: None,
            catalog_url: Uri::from_static("http://catalog.default"),
            cart_url: Uri::from_static("http://cart.default"),
            reviews_url: Uri::from_static("http://reviews.default"),
            pricing_url: Uri::from_static("http://pricing.default:80"),
            delay_ms: 0,
            fail_percent: 0,
        }
    }

    pub(crate) fn instance(&self) -> &str {
        self.instance.as_deref().unwrap_or_else(|| self.service.name())
    }
}

/// The services of the shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Service {
    /// The front: puts a page together from catalog, cart and reviews.
    Web,
    /// What is for sale; two versions.
    Catalog,
    /// What somebody wants to buy; asks `pricing` for the sum.
    Cart,
    /// What people think of the products.
    Reviews,
    /// What things cost, by gRPC.
    Pricing,
}

impl Service {
    /// The name as on the command line and in the mesh.
    pub fn name(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Catalog => "catalog",
            Self::Cart => "cart",
            Self::Reviews => "reviews",
            Self::Pricing => "pricing",
        }
    }
}
