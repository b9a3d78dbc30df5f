// The load of bench/cluster for etcd: what load.c does, through etcd's own Go client.
//
// It takes the same options, prints the same names and counts alike. The one
// difference is --clients, which are connections of their own here too: etcd's
// client sends over one HTTP/2 connection, and several can be faster.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"go.etcd.io/etcd/clientv3"
	"go.uber.org/zap"
)

var (
	servers     = flag.String("servers", "", "HOST:PORT,...")
	mode        = flag.String("mode", "", "write, read, failover or fill")
	outstanding = flag.Int("outstanding", 1, "requests under way")
	clients     = flag.Int("clients", 1, "connections")
	seconds     = flag.Float64("seconds", 5, "counted")
	warmup      = flag.Float64("warmup", 1, "not counted, in seconds")
	keys        = flag.Int("keys", 10000, "different ones")
	size        = flag.Int("size", 128, "bytes of a value")
	seed        = flag.Int64("seed", 1, "of the keys")
)

// CLOCK_MONOTONIC, which the driver reads as well.
func monotonic() time.Duration {
	var now syscall.Timespec
	const clockMonotonic = 1
	syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&now)), 0)
	return time.Duration(now.Nano())
}

// The gaps between answers, whoever got them.
type gaps struct {
	sync.Mutex
	last, longest, end time.Duration
}

func (g *gaps) answered() {
	now := monotonic()
	g.Lock()
	if g.last != 0 && now-g.last > g.longest {
		g.longest, g.end = now-g.last, now
	}
	g.last = now
	g.Unlock()
}

type load struct {
	clients  []*clientv3.Client
	gaps     gaps
	counting int32
	stopping int32
	next     int64 // Key of fill.
	answers  int64
	retries  int64
	failed   atomic.Value
}

func (l *load) key(random *rand.Rand) (string, bool) {
	if *mode == "fill" {
		number := atomic.AddInt64(&l.next, 1) - 1
		return fmt.Sprintf("key-%08d", number), number < int64(*keys)
	}
	return fmt.Sprintf("key-%08d", random.Intn(*keys)), true
}

var errOther = errors.New("a key has not the value it was given")

func (l *load) ask(ctx context.Context, client *clientv3.Client, key string, value []byte) error {
	if *mode == "read" {
		got, err := client.Get(ctx, key) // Linearizable unless asked otherwise.
		if err == nil && (len(got.Kvs) != 1 || len(got.Kvs[0].Value) != *size) {
			err = errOther
		}
		return err
	}
	_, err := client.Put(ctx, key, string(value))
	return err
}

// With etcd it is the caller who tries again, after a change of leaders say.
func (l *load) insist(client *clientv3.Client, key string, value []byte) error {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), patience())
		err := l.ask(ctx, client, key, value)
		cancel()
		if err == nil || err == errOther || atomic.LoadInt32(&l.stopping) != 0 {
			return err
		}
		atomic.AddInt64(&l.retries, 1)
		time.Sleep(5 * time.Millisecond)
	}
}

// A dead server must not be waited for long, a slow one must not be asked twice.
func patience() time.Duration {
	if *mode == "failover" {
		return 500 * time.Millisecond
	}
	return 10 * time.Second
}

// One of K requests, again and again. Returns the latencies counted.
func (l *load) work(number int) []time.Duration {
	random := rand.New(rand.NewSource(*seed*1000003 + int64(number)))
	client := l.clients[number%len(l.clients)]
	value := make([]byte, *size)
	random.Read(value)
	var latencies []time.Duration
	for atomic.LoadInt32(&l.stopping) == 0 {
		key, more := l.key(random)
		if !more {
			break
		}
		binary.LittleEndian.PutUint64(value, random.Uint64())
		asked := time.Now()
		if err := l.insist(client, key, value); err != nil {
			if err == errOther {
				l.failed.Store(err.Error())
			}
			break
		}
		if *mode == "failover" {
			l.gaps.answered()
		}
		atomic.AddInt64(&l.answers, 1)
		if atomic.LoadInt32(&l.counting) != 0 {
			latencies = append(latencies, time.Since(asked))
		}
	}
	return latencies
}

func (l *load) run() []time.Duration {
	var wait sync.WaitGroup
	parts := make([][]time.Duration, *outstanding)
	for number := range parts {
		wait.Add(1)
		go func(number int) {
			defer wait.Done()
			parts[number] = l.work(number)
		}(number)
	}
	if *mode != "fill" {
		time.Sleep(time.Duration(*warmup * float64(time.Second)))
		atomic.StoreInt32(&l.counting, 1)
		time.Sleep(time.Duration(*seconds * float64(time.Second)))
		atomic.StoreInt32(&l.counting, 0)
		atomic.StoreInt32(&l.stopping, 1)
	}
	wait.Wait()
	var all []time.Duration
	for _, part := range parts {
		all = append(all, part...)
	}
	sort.Slice(all, func(a, b int) bool { return all[a] < all[b] })
	return all
}

func fail(what interface{}) {
	fmt.Fprintln(os.Stderr, "etcdload:", what)
	os.Exit(1)
}

func us(t time.Duration) float64 { return float64(t) / 1000 }

func (l *load) print(all []time.Duration) {
	quantile := func(part float64) float64 {
		if len(all) == 0 {
			return 0
		}
		at := int(part * float64(len(all)))
		if at >= len(all) {
			at = len(all) - 1
		}
		return us(all[at])
	}
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	fmt.Printf("ops %.0f\n", float64(len(all)) / *seconds)
	fmt.Printf("p50_us %.1f\np99_us %.1f\np999_us %.1f\nmax_us %.1f\n", quantile(0.5), quantile(0.99),
		quantile(0.999), quantile(1))
	fmt.Printf("gap_ms %.3f\ngap_end_s %.6f\n", us(l.gaps.longest)/1000, l.gaps.end.Seconds())
	fmt.Printf("answers %d\nretries %d\n", l.answers, l.retries)
	fmt.Printf("cpu_us %.3f\n", us(time.Duration(usage.Utime.Nano()+usage.Stime.Nano()))/
		float64(l.answers+1))
}

func main() {
	flag.Parse()
	if *servers == "" || *mode == "" || *clients < 1 || *outstanding < 1 {
		fail("give --servers and --mode")
	}
	l := &load{}
	quiet := zap.NewProductionConfig()
	quiet.Level.SetLevel(zap.FatalLevel) // What fails is counted and tried again here.
	for n := 0; n < *clients; n++ {
		client, err := clientv3.New(clientv3.Config{
			Endpoints:   strings.Split(*servers, ","),
			DialTimeout: 5 * time.Second,
			LogConfig:   &quiet,
		})
		if err != nil {
			fail(err)
		}
		l.clients = append(l.clients, client)
	}
	all := l.run()
	if failure := l.failed.Load(); failure != nil {
		fail(failure)
	}
	l.print(all)
}
