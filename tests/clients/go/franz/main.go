// franz-go: franz HOST:PORT[,HOST:PORT] [CHECK ...]
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"ringlog/clients/checks"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

var (
	brokers = strings.Split(os.Args[1], ",")
	ctx     = context.Background()
	admin   = kadm.NewClient(client())
)

func client(options ...kgo.Opt) *kgo.Client {
	made, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(brokers...), kgo.MetadataMinAge(100 * time.Millisecond)}, options...)...)
	checks.Must(err)
	return made
}

func create(name string, partitions int32, configs map[string]*string) string {
	topic := checks.Fresh(name)
	_, err := admin.CreateTopic(ctx, partitions, -1, configs, topic)
	checks.Must(err)
	return topic
}

func produce(records []*kgo.Record, options ...kgo.Opt) error {
	producer := client(append([]kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner())}, options...)...)
	defer producer.Close()
	return producer.ProduceSync(ctx, records...).FirstErr()
}

func numbered(topic string, count, partitions int) []*kgo.Record {
	var records []*kgo.Record
	for i := range count {
		records = append(records, &kgo.Record{Topic: topic, Partition: int32(i % partitions), Value: fmt.Append(nil, i)})
	}
	return records
}

// read polls until count records have come.
func read(consumer *kgo.Client, count int) []*kgo.Record {
	var records []*kgo.Record
	within, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	for len(records) < count {
		fetches := consumer.PollFetches(within)
		checks.Must(fetches.Err())
		records = append(records, fetches.Records()...)
	}
	return records
}

func readFrom(topic string, offset kgo.Offset, count int, options ...kgo.Opt) []*kgo.Record {
	partitions := map[string]map[int32]kgo.Offset{topic: {0: offset}}
	consumer := client(append([]kgo.Opt{kgo.ConsumePartitions(partitions)}, options...)...)
	defer consumer.Close()
	return read(consumer, count)
}

func codecs() {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	acks := map[string][]kgo.Opt{
		"0":          {kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite()},
		"1":          {kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite()},
		"all":        {kgo.DisableIdempotentWrite()},
		"idempotent": {},
	}
	for codec, compression := range codecs {
		for ack, options := range acks {
			topic := create("codecs", 1, nil)
			checks.Must(produce(numbered(topic, 300, 1), append(options, kgo.ProducerBatchCompression(compression))...))
			for i, record := range readFrom(topic, kgo.NewOffset().AtStart(), 300) {
				checks.Equal(string(record.Value), fmt.Sprint(i), codec, ack)
			}
		}
	}
}

func shapes() {
	topic := create("shapes", 1, nil)
	long := strings.Repeat("k", 40_000)
	checks.Must(produce([]*kgo.Record{
		{Topic: topic},
		{Topic: topic, Key: []byte(long), Value: []byte{}, Headers: []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "a"}}},
		{Topic: topic, Key: []byte("k"), Timestamp: time.UnixMilli(1000)},
	}))
	read := readFrom(topic, kgo.NewOffset().AtStart(), 3)
	checks.Equal(read[0].Key == nil && read[0].Value == nil, true)
	checks.Equal(string(read[1].Key), long)
	checks.Equal(read[1].Value != nil && len(read[1].Headers) == 2 && read[1].Headers[1].Value == nil, true)
	checks.Equal(read[2].Timestamp.UnixMilli(), 1000)
}

func sizes() {
	topic := create("sizes", 1, nil)
	sizes := []int{1, 100_000, 1_048_588 - 72}
	large := []kgo.Opt{kgo.ProducerBatchMaxBytes(8_000_000), kgo.ProducerBatchCompression(kgo.NoCompression())}
	for _, size := range sizes {
		checks.Must(produce([]*kgo.Record{{Topic: topic, Value: make([]byte, size)}}, large...))
	}
	err := produce([]*kgo.Record{{Topic: topic, Value: make([]byte, 1_048_589)}}, large...)
	checks.Equal(errors.Is(err, kerr.MessageTooLarge), true, err)
	for i, record := range readFrom(topic, kgo.NewOffset().AtStart(), 3, kgo.FetchMaxPartitionBytes(1_000)) {
		checks.Equal(len(record.Value), sizes[i])
	}
}

func times() {
	topic := create("times", 1, nil)
	records := numbered(topic, 20, 1)
	for i, record := range records {
		record.Timestamp = time.UnixMilli(int64(1_000 + i*100))
	}
	checks.Must(produce(records))
	for asked, wanted := range map[int64]int64{1_000: 0, 1_001: 1, 2_900: 19, 2_901: 20} {
		listed, err := admin.ListOffsetsAfterMilli(ctx, asked, topic)
		checks.Must(err)
		offset, _ := listed.Lookup(topic, 0)
		checks.Equal(offset.Offset, wanted, asked)
	}
	checks.Equal(string(readFrom(topic, kgo.NewOffset().AfterMilli(1_450), 1)[0].Value), "5")
	listed, err := admin.ListMaxTimestampOffsets(ctx, topic)
	checks.Must(err)
	offset, _ := listed.Lookup(topic, 0)
	checks.Equal(offset.Offset, int64(19))
}

func resets() {
	topic := create("resets", 1, nil)
	checks.Must(produce(numbered(topic, 10, 1)))
	far := kgo.NewOffset().At(1_000)
	checks.Equal(len(readFrom(topic, far, 10, kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))), 10)
	consumer := client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: far}}), kgo.ConsumeResetOffset(kgo.NoResetOffset()))
	defer consumer.Close()
	err := consumer.PollFetches(ctx).Err()
	checks.Equal(errors.Is(err, kerr.OffsetOutOfRange), true, err)
}

// groupWith lets three members come and two go while records are sent, and expects every record at one of them.
func groupWith(balancer kgo.GroupBalancer) {
	topic, group := create("group", 6, nil), checks.Fresh("group")
	var guard sync.Mutex
	seen, owned := map[string]bool{}, map[*kgo.Client]int{}
	change := func(by int) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, member *kgo.Client, partitions map[string][]int32) {
			guard.Lock()
			owned[member] += by * len(partitions[topic])
			guard.Unlock()
		}
	}
	stop, fed, sent := make(chan struct{}), make(chan struct{}), 0
	go func() {
		producer := client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
		for open := true; open; sent++ {
			record := &kgo.Record{Topic: topic, Partition: int32(sent % 6), Value: fmt.Append(nil, sent)}
			checks.Must(producer.ProduceSync(ctx, record).FirstErr())
			select {
			case <-stop:
				open = false
			default:
			}
		}
		producer.Close()
		close(fed)
	}()
	var members []*kgo.Client
	for size := 1; size <= 3; size++ {
		member := client(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.Balancers(balancer),
			kgo.HeartbeatInterval(300*time.Millisecond), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
			kgo.OnPartitionsAssigned(change(1)), kgo.OnPartitionsRevoked(change(-1)), kgo.OnPartitionsLost(change(-1)))
		members = append(members, member)
		go func() {
			for {
				fetches := member.PollFetches(ctx)
				if fetches.IsClientClosed() {
					return
				}
				guard.Lock()
				fetches.EachRecord(func(record *kgo.Record) { seen[string(record.Value)] = true })
				guard.Unlock()
			}
		}()
		checks.Eventually(func() bool {
			guard.Lock()
			defer guard.Unlock()
			for _, member := range members {
				if owned[member] != 6/size {
					return false
				}
			}
			return true
		})
	}
	described, err := admin.DescribeGroups(ctx, group)
	checks.Must(err)
	checks.Equal(len(described[group].Members), 3)
	checks.Equal(described[group].Protocol, balancer.ProtocolName())
	for _, member := range members[1:] {
		member.Close()
	}
	close(stop)
	<-fed
	checks.Eventually(func() bool {
		guard.Lock()
		defer guard.Unlock()
		return len(seen) == sent && owned[members[0]] == 6
	})
	// What a member read and had not committed when it went, the one that is left reads again.
	checks.Eventually(func() bool {
		checks.Must(members[0].CommitUncommittedOffsets(ctx))
		lags, err := admin.Lag(ctx, group)
		checks.Must(err)
		checks.Must(lags.Error())
		return lags[group].Lag.Total() == 0
	})
	members[0].Close()
	_, err = admin.DeleteGroup(ctx, group)
	checks.Must(err)
}

func eager() {
	groupWith(kgo.RangeBalancer())
	groupWith(kgo.StickyBalancer())
}

func cooperative() { groupWith(kgo.CooperativeStickyBalancer()) }

func administration() {
	value := "3600000"
	topic := create("admin", 3, map[string]*string{"retention.ms": &value})
	listed, err := admin.ListTopics(ctx, topic)
	checks.Must(err)
	checks.Equal(len(listed[topic].Partitions), 3)
	configs, err := admin.DescribeTopicConfigs(ctx, topic)
	checks.Must(err)
	found := false
	for _, config := range configs[0].Configs {
		found = found || config.Key == "retention.ms" && config.MaybeValue() == value
	}
	checks.Equal(found, true)
	metadata, err := admin.BrokerMetadata(ctx)
	checks.Must(err)
	checks.Equal(len(metadata.Brokers), len(brokers))
	_, err = admin.CreateTopic(ctx, 1, -1, nil, topic)
	checks.Equal(errors.Is(err, kerr.TopicAlreadyExists), true, err)
	_, err = admin.DeleteTopic(ctx, topic)
	checks.Must(err)
	listed, err = admin.ListTopics(ctx)
	checks.Must(err)
	checks.Equal(listed.Has(topic), false)
}

// recreation deletes and creates a topic under a running producer and consumer.
func recreation() {
	topic := create("again", 1, nil)
	producer := client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.UnknownTopicRetries(-1))
	defer producer.Close()
	consumer := client(kgo.ConsumerGroup(checks.Fresh("again")), kgo.ConsumeTopics(topic), kgo.MetadataMaxAge(500*time.Millisecond),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer consumer.Close()
	checks.Must(producer.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("old")}).FirstErr())
	checks.Equal(string(read(consumer, 1)[0].Value), "old")
	_, err := admin.DeleteTopic(ctx, topic)
	checks.Must(err)
	_, err = admin.CreateTopic(ctx, 1, -1, nil, topic)
	checks.Must(err)
	within, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err = producer.ProduceSync(within, &kgo.Record{Topic: topic, Value: []byte("new")}).FirstErr()
	// What a client does of itself when a topic id changes is its own affair; a new one must go on.
	if err != nil {
		checks.Must(produce([]*kgo.Record{{Topic: topic, Value: []byte("new")}}))
	}
	checks.Equal(string(readFrom(topic, kgo.NewOffset().AtStart(), 1)[0].Value), "new")
}

func creation() {
	topic := checks.Fresh("auto")
	checks.Must(produce(numbered(topic, 1, 1), kgo.AllowAutoTopicCreation()))
	checks.Equal(len(readFrom(topic, kgo.NewOffset().AtStart(), 1)), 1)
}

func pattern() {
	prefix := checks.Fresh("pattern")
	consumer := client(kgo.ConsumerGroup(prefix), kgo.ConsumeRegex(), kgo.ConsumeTopics("^"+prefix+".*"),
		kgo.MetadataMaxAge(500*time.Millisecond), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer consumer.Close()
	for i := range 3 {
		checks.Must(produce(numbered(fmt.Sprint(prefix, i), 1, 1), kgo.AllowAutoTopicCreation()))
	}
	topics := []string{}
	for _, record := range read(consumer, 3) {
		topics = append(topics, strings.TrimPrefix(record.Topic, prefix))
	}
	sort.Strings(topics)
	checks.Equal(strings.Join(topics, " "), "0 1 2")
}

func partitions() {
	topic := create("wide", 1_000, nil)
	checks.Must(produce(numbered(topic, 3_000, 1_000)))
	consumer := client(kgo.ConsumerGroup(checks.Fresh("wide")), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer consumer.Close()
	seen := map[string]bool{}
	for _, record := range read(consumer, 3_000) {
		seen[string(record.Value)] = true
	}
	checks.Equal(len(seen), 3_000)
	_, err := admin.DeleteTopic(ctx, topic)
	checks.Must(err)
}

func topics() {
	var names []string
	for range 3_000 {
		names = append(names, checks.Fresh("many"))
	}
	within, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	created, err := admin.CreateTopics(within, 1, -1, nil, names...)
	checks.Must(err)
	checks.Must(created.Error())
	listed, err := admin.ListTopics(within)
	checks.Must(err)
	for _, name := range names {
		checks.Equal(len(listed[name].Partitions), 1)
	}
	_, err = admin.DeleteTopics(within, names...)
	checks.Must(err)
}

// restart sends for eight seconds; the brokers may be stopped and started meanwhile, one at a time.
func restart() {
	topic := create("restart", 3, nil)
	fmt.Println("running restart")
	producer := client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	sent := 0
	for end := time.Now().Add(8 * time.Second); time.Now().Before(end); sent++ {
		record := &kgo.Record{Topic: topic, Partition: int32(sent % 3), Value: fmt.Append(nil, sent)}
		producer.Produce(ctx, record, func(_ *kgo.Record, err error) { checks.Must(err) })
		time.Sleep(2 * time.Millisecond)
	}
	checks.Must(producer.Flush(ctx))
	producer.Close()
	consumer := client(kgo.ConsumerGroup(checks.Fresh("restart")), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer consumer.Close()
	seen := map[string]bool{}
	for _, record := range read(consumer, sent) {
		seen[string(record.Value)] = true
	}
	checks.Equal(len(seen), sent)
}

func main() {
	checks.Main([]checks.Check{
		{Name: "codecs", Run: codecs}, {Name: "shapes", Run: shapes}, {Name: "sizes", Run: sizes}, {Name: "times", Run: times},
		{Name: "resets", Run: resets}, {Name: "eager", Run: eager}, {Name: "cooperative", Run: cooperative},
		{Name: "administration", Run: administration}, {Name: "recreation", Run: recreation}, {Name: "creation", Run: creation},
		{Name: "pattern", Run: pattern}, {Name: "partitions", Run: partitions}, {Name: "topics", Run: topics}, {Name: "restart", Run: restart},
	})
}
