package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	uiserver "github.com/temporalio/ui-server/v2/server"
	uiconfig "github.com/temporalio/ui-server/v2/server/config"
	uioptions "github.com/temporalio/ui-server/v2/server/server_options"
)

// webUI is Temporal's web interface, which talks to the frontend as any client
// does.
type webUI struct {
	server *uiserver.Server
	addr   string // host:port under which this host reaches it
	path   string // public path, "" or "/..."
}

// newWebUI returns nil if there is to be none.
func newWebUI(o *options, ps ports) *webUI {
	if o.headless {
		return nil
	}
	path := strings.Trim(o.uiPublicPath, "/")
	if path != "" {
		path = "/" + path
	}
	host := o.uiIP
	if strings.Contains(host, ":") {
		host = "[" + host + "]" // the UI joins it to the port as it is
	}
	c := &uiconfig.Config{
		Host:                host,
		Port:                ps.ui,
		PublicPath:          path,
		TemporalGRPCAddress: dialAddr(o.ip, ps.frontend),
		EnableUI:            true,
		UIAssetPath:         o.uiAssetPath,
		Codec:               uiconfig.Codec{Endpoint: o.uiCodecEndpoint},
		DefaultNamespace:    defaultNamespace,
		// Over plain HTTP a browser keeps no cookie that is marked as secure,
		// and without its cookie the UI cannot start or signal anything.
		CORS:             uiconfig.CORS{CookieInsecure: true},
		DisableNewsFetch: true,
		HideLogs:         true,
	}
	return &webUI{
		server: uiserver.NewServer(uioptions.WithConfigProvider(c)),
		addr:   dialAddr(o.uiIP, ps.ui),
		path:   path,
	}
}

// url is where a browser on this host finds it.
func (u *webUI) url() string {
	return "http://" + u.addr + u.path
}

// waitReady returns when the UI answers, or when ctx is done.
func (u *webUI) waitReady(ctx context.Context) error {
	client := &http.Client{Timeout: 5 * time.Second}
	return poll(ctx, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.url()+"/", nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("web UI at %s answers %s", u.url(), resp.Status)
		}
		return nil
	})
}
