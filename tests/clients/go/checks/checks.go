// Package checks is what the programs in Go share: each check is a function, its result one line on standard output.
package checks

import (
	"crypto/rand"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Check is a function with the name under which it is asked for and reported. It panics when it fails.
type Check struct {
	Name string
	Run  func()
}

// Main runs the checks that the command line names after the brokers, or all; it ends with 1 when one failed.
func Main(all []Check) {
	failed := false
	for _, check := range all {
		if len(os.Args) > 2 && !slices.Contains(os.Args[2:], check.Name) {
			continue
		}
		begin := time.Now()
		if failure := run(check); failure != "" {
			failed = true
			fmt.Printf("FAIL %s %s\n", check.Name, strings.ReplaceAll(failure, "\n", " "))
		} else {
			fmt.Printf("ok %s %.1fs\n", check.Name, time.Since(begin).Seconds())
		}
	}
	if failed {
		os.Exit(1)
	}
}

func run(check Check) (failure string) {
	defer func() {
		if reason := recover(); reason != nil {
			failure = fmt.Sprint(reason)
		}
	}()
	check.Run()
	return ""
}

// Fresh is a name that no other run uses.
func Fresh(name string) string { return name + "-" + rand.Text() }

// Must panics with an error.
func Must(err error) {
	if err != nil {
		panic(err)
	}
}

// Equal panics with both values and what they are about where they differ.
func Equal[T comparable](got, wanted T, about ...any) {
	if got != wanted {
		panic(fmt.Sprintf("got %v, not %v %v", got, wanted, about))
	}
}

// Eventually waits for the condition, 60 seconds at most.
func Eventually(condition func() bool) {
	for end := time.Now().Add(60 * time.Second); !condition(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			panic("did not come true in time")
		}
	}
}
