package main

import (
	"io"

	"go.temporal.io/server/common/log"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// logger writes the server's log. Its level can be raised, because a server
// that is being stopped complains about everything that it just stopped.
type logger struct {
	log.Logger
	level zap.AtomicLevel
}

func newLogger(o *options, w io.Writer) *logger {
	level := zap.NewAtomicLevelAt(zapLevel(o.logLevel))
	encoder := zapcore.NewConsoleEncoder(log.DefaultZapEncoderConfig)
	if o.logFormat == "json" {
		encoder = zapcore.NewJSONEncoder(log.DefaultZapEncoderConfig)
	}
	core := zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(w)), level)
	return &logger{Logger: log.NewZapLogger(zap.New(core)), level: level}
}

// quiet lets only the words through with which the process dies.
func (l *logger) quiet() {
	l.level.SetLevel(zapcore.FatalLevel)
}

// zapLevel translates a checked --log-level.
func zapLevel(name string) zapcore.Level {
	if name == "never" {
		return zapcore.FatalLevel
	}
	level, err := zapcore.ParseLevel(name)
	if err != nil {
		return zapcore.ErrorLevel
	}
	return level
}
