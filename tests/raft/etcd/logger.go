package main

import (
	"fmt"

	"go.etcd.io/etcd/raft/tracker"
)

type progress = tracker.Progress

// logger says nothing, and panics where it is asked to.
type logger struct{}

func (logger) Debug(...interface{})            {}
func (logger) Debugf(string, ...interface{})   {}
func (logger) Error(...interface{})            {}
func (logger) Errorf(string, ...interface{})   {}
func (logger) Info(...interface{})             {}
func (logger) Infof(string, ...interface{})    {}
func (logger) Warning(...interface{})          {}
func (logger) Warningf(string, ...interface{}) {}
func (logger) Fatal(v ...interface{})          { panic(fmt.Sprint(v...)) }
func (logger) Panic(v ...interface{})          { panic(fmt.Sprint(v...)) }

func (logger) Fatalf(format string, v ...interface{}) { panic(fmt.Sprintf(format, v...)) }
func (logger) Panicf(format string, v ...interface{}) { panic(fmt.Sprintf(format, v...)) }
