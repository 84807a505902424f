//go:build !unix || solaris || aix

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// lock waits until the file is gone and then creates it. A killed run leaves it
// behind, hence the limit and the advice.
func lock(name string) (unlock func(), err error) {
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
		if err == nil {
			f.Close()
			return func() { os.Remove(name) }, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("%s: another run holds it; if none is at work, remove the file", name)
		}
	}
}
