//! Metrics of the connections of a listener.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ListenerLabels {
    listener: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RefusedLabels {
    listener: &'static str,
    limit: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ClosedLabels {
    listener: &'static str,
    reason: &'static str,
}

/// The metrics of connections, of all listeners.
#[derive(Clone, Debug, Default)]
pub(super) struct ConnectionFamilies {
    open: Family<ListenerLabels, Gauge>,
    refused: Family<RefusedLabels, Counter>,
    closed: Family<ClosedLabels, Counter>,
    accept_pauses: Family<ListenerLabels, Counter>,
}

/// The metrics of one listener.
#[derive(Clone, Debug)]
pub struct ConnectionMetrics {
    listener: &'static str,
    families: ConnectionFamilies,
    /// The number of open connections.
    pub open: Gauge,
    /// Counts the times that accepting has paused because the process had no descriptors left.
    pub accept_pauses: Counter,
}

impl ConnectionFamilies {
    /// Registers the metrics.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "connections",
            "Open connections of clients",
            self.open.clone(),
        );
        registry.register(
            "refused_connections",
            "Connections refused because each one within the limit has a call",
            self.refused.clone(),
        );
        registry.register(
            "closed_connections",
            "Connections that the gateway has closed, by reason",
            self.closed.clone(),
        );
        registry.register(
            "accept_pauses",
            "Times that no connection was accepted because the process had no descriptors left",
            self.accept_pauses.clone(),
        );
    }

    /// Returns the metrics of a listener. All of them exist from now on, with the value 0.
    pub(super) fn of(&self, listener: &'static str) -> ConnectionMetrics {
        let labels = ListenerLabels { listener };
        for limit in ["total", "per_address"] {
            let labels = RefusedLabels { listener, limit };
            drop(self.refused.get_or_create(&labels));
        }
        for reason in ["no_preface", "idle", "evicted"] {
            let labels = ClosedLabels { listener, reason };
            drop(self.closed.get_or_create(&labels));
        }
        ConnectionMetrics {
            listener,
            families: self.clone(),
            open: self.open.get_or_create_owned(&labels),
            accept_pauses: self.accept_pauses.get_or_create_owned(&labels),
        }
    }
}

impl ConnectionMetrics {
    /// Counts a connection that was refused because of a limit.
    pub fn refused(&self, limit: &'static str) {
        let labels = RefusedLabels {
            listener: self.listener,
            limit,
        };
        self.families.refused.get_or_create(&labels).inc();
    }

    /// Counts a connection that the gateway closes.
    pub fn closed(&self, reason: &'static str) {
        let labels = ClosedLabels {
            listener: self.listener,
            reason,
        };
        self.families.closed.get_or_create(&labels).inc();
    }
}
