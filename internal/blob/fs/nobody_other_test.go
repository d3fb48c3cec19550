//go:build !linux

package fs

import "errors"

func becomeNobody() error { return errors.New("cannot act as another user here") }
