//! The stock, known to every service of the shop so that it needs no database.

/// One thing for sale.
pub(crate) struct Product {
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    /// In hundredths of a euro.
    pub(crate) price_cents: u64,
    /// Out of five, one decimal.
    pub(crate) rating: f32,
    pub(crate) review: &'static str,
}

pub(crate) const PRODUCTS: &[Product] = &[
    Product {
        id: "pannier",
        name: "Leather pannier",
        price_cents: 12_900,
        rating: 4.6,
        review: "Holds a weekend, survives a year of rain.",
    },
    Product {
        id: "goggles",
        name: "Riding goggles",
        price_cents: 5_450,
        rating: 4.1,
        review: "Fog only when you stop, so do not stop.",
    },
    Product {
        id: "gloves",
        name: "Winter gloves",
        price_cents: 7_900,
        rating: 4.8,
        review: "Warm at minus ten, and the levers still feel like levers.",
    },
    Product {
        id: "footrest",
        name: "Pillion footrest",
        price_cents: 3_300,
        rating: 3.9,
        review: "The passenger stopped complaining.",
    },
];

pub(crate) fn product(id: &str) -> Option<&'static Product> {
    PRODUCTS.iter().find(|product| product.id == id)
}
