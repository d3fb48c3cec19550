package main

import (
	"maps"
	"time"

	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/metrics"
	sqliteplugin "go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	"go.temporal.io/server/common/primitives"
)

// serverConfig is what a configuration file would say to a server that is
// alone: one cluster, one history shard, no archival, no TLS.
func serverConfig(o *options, ps ports, s *store) *config.Config {
	c := &config.Config{
		Persistence: config.Persistence{
			DefaultStore:     sqliteplugin.PluginName,
			VisibilityStore:  sqliteplugin.PluginName,
			NumHistoryShards: 1,
			DataStores:       map[string]config.DataStore{sqliteplugin.PluginName: {SQL: s.sql}},
		},
		ClusterMetadata: &cluster.Config{
			FailoverVersionIncrement: 10,
			MasterClusterName:        clusterName,
			CurrentClusterName:       clusterName,
			ClusterInformation: map[string]cluster.ClusterInformation{
				clusterName: {
					Enabled:                true,
					InitialFailoverVersion: 1,
					RPCAddress:             dialAddr(o.ip, ps.frontend),
					HTTPAddress:            dialAddr(o.ip, ps.http),
					// Fixed, so that a file is the same cluster at every start.
					ClusterID: "5f1f6c1e-3a35-4d4c-9d0e-6c1fb0a7d15c",
				},
			},
		},
		DCRedirectionPolicy: config.DCRedirectionPolicy{Policy: "noop"},
		Services: map[string]config.Service{
			string(primitives.FrontendService): {RPC: config.RPC{GRPCPort: ps.frontend, HTTPPort: ps.http, BindOnIP: o.ip}},
			string(primitives.HistoryService):  {RPC: config.RPC{GRPCPort: ps.history, BindOnIP: loopback}},
			string(primitives.MatchingService): {RPC: config.RPC{GRPCPort: ps.matching, BindOnIP: loopback}},
			string(primitives.WorkerService):   {RPC: config.RPC{GRPCPort: ps.worker, BindOnIP: loopback}},
		},
		PublicClient: config.PublicClient{HostPort: dialAddr(o.ip, ps.frontend)},
		Archival: config.Archival{
			History:    config.HistoryArchival{State: config.ArchivalDisabled},
			Visibility: config.VisibilityArchival{State: config.ArchivalDisabled},
		},
		NamespaceDefaults: config.NamespaceDefaults{Archival: config.ArchivalNamespaceDefaults{
			History:    config.HistoryArchivalNamespaceDefaults{State: config.ArchivalDisabled},
			Visibility: config.VisibilityArchivalNamespaceDefaults{State: config.ArchivalDisabled},
		}},
	}
	c.Global.Membership = config.Membership{MaxJoinDuration: 30 * time.Second, BroadcastAddress: loopback}
	if ps.metrics != 0 {
		c.Global.Metrics = &metrics.Config{Prometheus: &metrics.PrometheusConfig{
			ListenAddress: hostPort(o.ip, ps.metrics),
			HandlerPath:   "/metrics",
		}}
	}
	return c
}

// staticHosts says where each service is, so that they need not find each other
// by gossip.
func staticHosts(o *options, ps ports) map[primitives.ServiceName]static.Hosts {
	return map[primitives.ServiceName]static.Hosts{
		primitives.FrontendService: static.SingleLocalHost(dialAddr(o.ip, ps.frontend)),
		primitives.HistoryService:  static.SingleLocalHost(hostPort(loopback, ps.history)),
		primitives.MatchingService: static.SingleLocalHost(hostPort(loopback, ps.matching)),
		primitives.WorkerService:   static.SingleLocalHost(hostPort(loopback, ps.worker)),
	}
}

// dynamicConfig is the settings that the server reads while it runs: ours, and
// over them those of the command line.
func dynamicConfig(o *options) dynamicconfig.StaticClient {
	values := dynamicconfig.StaticClient{
		// It would ask a server of Temporal's makers for newer versions.
		dynamicconfig.EnableServerVersionCheck.Key(): false,
		// A search attribute that is added while the server runs works at once.
		dynamicconfig.ForceSearchAttributesCacheRefreshOnRead.Key(): true,
		// The default of 128000 workflows in memory is meant for a machine of
		// the server's own.
		dynamicconfig.HistoryCacheHostLevelMaxSize.Key(): 8192,
	}
	maps.Copy(values, o.dynamicConfig)
	return values
}
