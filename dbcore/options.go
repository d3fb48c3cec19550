package dbcore

import (
	"io"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
)

// Option changes how a DB treats requests. Config says where the server is and how to pool; options say what happens when
// it does not answer.
type Option func(*policy)

// policy is what the options make.
type policy struct {
	retry    RetryConfig
	budget   *Budget
	breaker  BreakerConfig
	classify func(error, Phase) Verdict
	logger   *slog.Logger
	metrics  Metrics
	tracer   pgx.QueryTracer
	tokens   string
	gate     *gate // of a Cluster's node
}

func newPolicy(opts []Option) (*policy, error) {
	p := &policy{classify: Classify, metrics: noMetrics{}, logger: slog.New(slog.NewTextHandler(io.Discard, nil)), tokens: DefaultTokenTable}
	for _, o := range opts {
		o(p)
	}
	if err := p.retry.validate(); err != nil {
		return nil, err
	}
	p.retry = p.retry.withDefaults()
	if p.budget == nil {
		p.budget = NewBudget(DefaultBudget)
	}
	return p, nil
}

// WithRetry sets when and how often requests are repeated. Without it: three attempts (see RetryConfig).
func WithRetry(c RetryConfig) Option { return func(p *policy) { p.retry = c } }

// WithBudget shares a Budget between the pools of one cluster. Without it each DB has its own of 100 repetitions.
func WithBudget(b *Budget) Option { return func(p *policy) { p.budget = b } }

// WithBreaker sets up the circuit breakers, of which each named operation has its own. Without it the defaults of
// BreakerConfig hold.
func WithBreaker(c BreakerConfig) Option { return func(p *policy) { p.breaker = c } }

// WithClassifier replaces Classify. Let it decide what it knows and call Classify for the rest; it must be safe for
// concurrent use. It cannot make an ambiguous write be repeated: for an error of PhaseCommit that is Ambiguous to
// Classify, and for an autocommit statement that Classify would repeat only if idempotent, its Action is not heeded.
func WithClassifier(f func(err error, phase Phase) Verdict) Option {
	return func(p *policy) {
		p.classify = func(err error, phase Phase) Verdict {
			v, base := f(err, phase), Classify(err, phase)
			if v.Action == Retry && (base.Action == RetryIfIdempotent || base.Action == Ambiguous) {
				v.Action = base.Action
			}
			return v
		}
	}
}

// WithLogger gives a logger for what no error tells: lost connections that were repeated away, state changes, commits
// that no standby has. Without it nothing is logged. Connection strings are sanitised.
func WithLogger(l *slog.Logger) Option { return func(p *policy) { p.logger = l } }

// WithMetrics counts. See Metrics, and the subpackage dbcoreprom for Prometheus.
func WithMetrics(m Metrics) Option { return func(p *policy) { p.metrics = m } }

// WithTracer gives pgx's own tracer to every connection: it sees each statement, each attempt on its own.
func WithTracer(t pgx.QueryTracer) Option { return func(p *policy) { p.tracer = t } }

// WithTokenTable names the table of commit tokens (see VerifyToken), with its schema if need be; it is quoted as it
// stands by the caller. Without it: dbcore_commit_tokens.
func WithTokenTable(name string) Option { return func(p *policy) { p.tokens = name } }

// Metrics receives what there is to count. Its methods are called in the middle of requests: they must be quick, must
// not block, and must be safe for concurrent use. NoMetrics can be embedded, so that a new method breaks nobody.
type Metrics interface {
	// Request reports a request that has ended, with all its attempts: outcome is ok, error, rejected (by a breaker),
	// or ambiguous.
	Request(op string, outcome string, took time.Duration)
	// Retry reports that an attempt failed and will be repeated after a delay.
	Retry(op string, class Class, delay time.Duration)
	// Breaker reports a change of a circuit breaker's state.
	Breaker(op string, from, to BreakerState)
	// Commit reports a verified or unreplicated COMMIT: verified committed, verified rolled back, undecided, not
	// replicated.
	Commit(op string, outcome string)
}

// NoMetrics counts nothing.
type NoMetrics struct{}

// Request does nothing.
func (NoMetrics) Request(string, string, time.Duration) {}

// Retry does nothing.
func (NoMetrics) Retry(string, Class, time.Duration) {}

// Breaker does nothing.
func (NoMetrics) Breaker(string, BreakerState, BreakerState) {}

// Commit does nothing.
func (NoMetrics) Commit(string, string) {}

// noMetrics is NoMetrics, told apart so that the common case costs no clock.
type noMetrics struct{ NoMetrics }

// breakerConfig lets logs and metrics see what the breakers do, before whoever the caller wants to be told.
func (p *policy) breakerConfig(t *target) BreakerConfig {
	c := p.breaker
	told := c.OnStateChange
	c.OnStateChange = func(e BreakerEvent) {
		p.metrics.Breaker(e.Name, e.From, e.To)
		p.logger.Warn("circuit breaker", "op", e.Name, "from", e.From.String(), "to", e.To.String(), "target", t.String())
		if told != nil {
			told(e)
		}
	}
	return c
}
