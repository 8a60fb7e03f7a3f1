// segmentio's kafka-go: segmentio HOST:PORT[,HOST:PORT] [CHECK ...]
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"ringlog/clients/checks"
)

var (
	brokers = strings.Split(os.Args[1], ",")
	ctx     = context.Background()
	client  = &kafka.Client{Addr: kafka.TCP(brokers...), Timeout: 20 * time.Second}
)

func create(name string, partitions int) string {
	topic := checks.Fresh(name)
	answer, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{
		Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: partitions, ReplicationFactor: 1}},
	})
	checks.Must(err)
	checks.Must(answer.Errors[topic])
	return topic
}

func writer(topic string) *kafka.Writer {
	return &kafka.Writer{Addr: kafka.TCP(brokers...), Topic: topic, RequiredAcks: kafka.RequireAll, BatchTimeout: 5 * time.Millisecond}
}

func numbered(count int) []kafka.Message {
	var messages []kafka.Message
	for i := range count {
		messages = append(messages, kafka.Message{Value: fmt.Append(nil, i)})
	}
	return messages
}

func read(config kafka.ReaderConfig, count int) []kafka.Message {
	config.Brokers, config.MaxWait, config.StartOffset = brokers, 200*time.Millisecond, kafka.FirstOffset
	reader := kafka.NewReader(config)
	defer reader.Close()
	within, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	var messages []kafka.Message
	for len(messages) < count {
		message, err := reader.ReadMessage(within)
		checks.Must(err)
		messages = append(messages, message)
	}
	return messages
}

func codecs() {
	for _, codec := range []kafka.Compression{0, kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd} {
		for _, acks := range []kafka.RequiredAcks{kafka.RequireNone, kafka.RequireOne, kafka.RequireAll} {
			topic := create("codecs", 1)
			writer := writer(topic)
			writer.Compression, writer.RequiredAcks = codec, acks
			checks.Must(writer.WriteMessages(ctx, numbered(300)...))
			checks.Must(writer.Close())
			for i, message := range read(kafka.ReaderConfig{Topic: topic}, 300) {
				checks.Equal(string(message.Value), fmt.Sprint(i), codec, acks)
			}
		}
	}
}

func shapes() {
	topic := create("shapes", 1)
	writer := writer(topic)
	defer writer.Close()
	long := strings.Repeat("k", 40_000)
	checks.Must(writer.WriteMessages(ctx, kafka.Message{},
		kafka.Message{Key: []byte(long), Headers: []kafka.Header{{Key: "a", Value: []byte("1")}, {Key: "a"}}},
		kafka.Message{Key: []byte("k"), Time: time.UnixMilli(1000)}))
	messages := read(kafka.ReaderConfig{Topic: topic}, 3)
	checks.Equal(string(messages[1].Key), long)
	checks.Equal(len(messages[1].Headers), 2)
	checks.Equal(messages[2].Time.UnixMilli(), 1000)
}

func sizes() {
	topic := create("sizes", 1)
	writer := writer(topic)
	writer.BatchBytes = 8_000_000
	defer writer.Close()
	for _, size := range []int{1, 100_000, 1_048_588 - 72} {
		checks.Must(writer.WriteMessages(ctx, kafka.Message{Value: make([]byte, size)}))
	}
	err := writer.WriteMessages(ctx, kafka.Message{Value: make([]byte, 1_048_589)})
	checks.Equal(strings.Contains(fmt.Sprint(err), kafka.MessageSizeTooLarge.Title()), true, err)
	checks.Equal(len(read(kafka.ReaderConfig{Topic: topic}, 3)), 3)
}

func eager() {
	topic, group := create("group", 3), checks.Fresh("group")
	writer := writer(topic)
	defer writer.Close()
	checks.Must(writer.WriteMessages(ctx, numbered(300)...))
	seen := map[string]bool{}
	for _, message := range read(kafka.ReaderConfig{Topic: topic, GroupID: group}, 300) {
		seen[string(message.Value)] = true
	}
	checks.Equal(len(seen), 300)
	checks.Must(writer.WriteMessages(ctx, kafka.Message{Value: []byte("last")}))
	checks.Equal(string(read(kafka.ReaderConfig{Topic: topic, GroupID: group}, 1)[0].Value), "last")
}

func administration() {
	topic := create("admin", 3)
	metadata, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	checks.Must(err)
	checks.Equal(len(metadata.Topics[0].Partitions), 3)
	checks.Equal(len(metadata.Brokers), len(brokers))
	deleted, err := client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{topic}})
	checks.Must(err)
	checks.Must(deleted.Errors[topic])
	again, err := client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{topic}})
	checks.Must(err)
	checks.Equal(errors.Is(again.Errors[topic], kafka.UnknownTopicOrPartition), true, again.Errors)
}

func creation() {
	topic := checks.Fresh("auto")
	writer := writer(topic)
	writer.AllowAutoTopicCreation = true
	defer writer.Close()
	checks.Eventually(func() bool { return writer.WriteMessages(ctx, kafka.Message{Value: []byte("v")}) == nil })
	checks.Equal(string(read(kafka.ReaderConfig{Topic: topic}, 1)[0].Value), "v")
}

func main() {
	checks.Main([]checks.Check{
		{Name: "codecs", Run: codecs}, {Name: "shapes", Run: shapes}, {Name: "sizes", Run: sizes},
		{Name: "eager", Run: eager}, {Name: "administration", Run: administration}, {Name: "creation", Run: creation},
	})
}
