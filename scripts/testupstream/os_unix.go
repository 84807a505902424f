//go:build unix

package main

import (
	"fmt"
	"os/exec"
	"syscall"
)

// ownGroup puts the command in a process group of its own, which is killed as
// a whole: some tests start processes. It also keeps a Ctrl-C on the terminal
// away from it; that reaches it by way of the command's context.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if cmd.Cancel != nil {
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	}
}

// lock takes the file for as long as this process lives: a bare descriptor, which
// nothing closes before.
func lock(path string) error {
	fd, err := syscall.Open(path, syscall.O_CREAT|syscall.O_RDWR|syscall.O_CLOEXEC, 0o644)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = syscall.Close(fd)
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
