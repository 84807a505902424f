package main

import "time"

const (
	short = 5 * time.Minute
	long  = 60 * time.Minute
)

// upstreamAreas is in the order in which a test looks for its area: first the
// large ones that the hooks do not touch, so that the names of the others can
// be told by words such as TLS.
var upstreamAreas = []area{
	{"norace", "what upstream runs without the race detector: long, large", false, `[^:]*:TestNoRace`, long},
	{"js-cluster-1", "JetStream clusters, first file", false, `server/jetstream_cluster_1`, long},
	{"js-cluster-2", "JetStream clusters, second file", false, `server/jetstream_cluster_2`, long},
	{"js-cluster-3", "JetStream clusters, third file", false, `server/jetstream_cluster_3`, long},
	{"js-cluster-4", "JetStream clusters, fourth file and later ones", false, `server/jetstream_cluster`, long},
	{"js-supercluster", "JetStream across gateways", false, `server/jetstream_super_cluster`, long},
	{"js-consumer", "JetStream consumers", false, `server/jetstream_consumer`, long},
	{"jetstream", "JetStream on one server", false, `server/jetstream`, long},
	{"raft", "elections, log and snapshots", false, `server/raft`, long},
	{"store", "file, memory and directory stores", false, `server/(filestore|memstore|store|dirstore)_`, long},
	{"mqtt", "MQTT", false, `server/mqtt`, long},
	{"gateway", "gateways", false, `(server|test)/gateway`, long},
	{"leafnode", "leaf nodes", false, `(server|test)/leafnode`, long},
	{"msgtrace", "message traces", false, `server/msgtrace`, long},
	// Minutes that are spent waiting for a deadline, or on clusters with OCSP:
	// the areas below show the same code at work.
	{"slow", "the areas below that take long", false, `(server/[^:]*:Test(LogConnectionAuthInfo|ConnectionStringWithLogConnectionInfo|JWTUpdateAccountClaimsStreamAndServiceImportDeadlock)$|test/ocsp[^:]*:Test\w*(Cluster|Gateway|Leaf))`, long},

	{"proxy", "upstream's PROXY protocol and its trusted proxies (ADR-55)", true, `(server/client_proxyproto|(server|test)/[^:]*:Test\w*Proxy)`, short},
	{"reload", "configuration reload", true, `(server/reload_|test/[^:]*:Test(PortsFileReload|AllowNonTLSReload))`, short},
	{"monitor", "varz, connz and the other monitoring endpoints", true, `(server/(monitor|closed_conns)|test/monitor)`, short},
	{"events", "system events, advisories, system account", true, `server/events`, short},
	{"auth-callout", "auth callout", true, `server/auth_callout`, short},
	{"jwt", "operator mode: JWT, claims, limits, resolvers", true, `server/(jwt|trust)_`, short},
	{"auth", "users, tokens, nkeys, accounts", true, `(server/(auth|nkey|accounts)_|test/(auth|client_auth|user_authorization|operator)_)`, short},
	{"lameduck", "lame duck mode", true, `server/[^:]*:Test\w*(LameDuck|LDM)`, short},
	{"info", "INFO: first, asynchronous, connect_urls, advertise", true, `(server|test)/[^:]*:Test\w*(Info|INFO|ConnectURL|ClientURL|Advertise)`, short},
	{"ocsp", "OCSP staples and peers", false, `test/ocsp`, long},
	{"tls", "TLS: handshakes, client certificates, pinned certificates", true, `(test/(tls|cluster_tls)_|(server|test)/[^:]*:Test\w*(TLS|Cert))`, short},
	{"client", "the client protocol, parser, limits, slow consumers", true, `(server/(client|parser|split|ping|rate_counter)_|test/(proto|pedantic|verbose|ping|maxpayload|fanout|client_cluster)_)`, short},
	{"config", "options and command line", true, `(server/(opts|config_check)|test/opts)`, short},
	{"start", "start, shutdown, signals, ports file, log", true, `(server/(server|signal|service|log)_|test/(gosrv|port|ports|pid|log)_)`, short},
	{"websocket", "WebSocket", true, `server/websocket`, short},

	{"routes", "routes between servers", false, `(server/routes|test/(routes|new_routes|route_discovery|cluster)_)`, long},
	{"conf", "the configuration parser", false, `conf/`, short},
	{"logger", "the logger", false, `logger/`, short},
	{"test", "the rest of package test", false, `test/`, long},
	{"others", "the rest of package server, and the small packages", false, ``, long},
}
