// sarama: sarama HOST:PORT[,HOST:PORT] [CHECK ...]
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"ringlog/clients/checks"
)

var brokers = strings.Split(os.Args[1], ",")

func config() *sarama.Config {
	made := sarama.NewConfig()
	made.Version = sarama.V4_1_0_0
	made.Producer.Return.Successes = true
	made.Producer.Partitioner = sarama.NewManualPartitioner
	made.Consumer.Offsets.Initial = sarama.OffsetOldest
	made.Consumer.Group.Heartbeat.Interval = 500 * time.Millisecond
	return made
}

func admin() sarama.ClusterAdmin {
	made, err := sarama.NewClusterAdmin(brokers, config())
	checks.Must(err)
	return made
}

func create(name string, partitions int32, configs map[string]*string) string {
	admin := admin()
	defer admin.Close()
	topic := checks.Fresh(name)
	checks.Must(admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1, ConfigEntries: configs}, false))
	return topic
}

func produce(config *sarama.Config, messages []*sarama.ProducerMessage) error {
	producer, err := sarama.NewSyncProducer(brokers, config)
	checks.Must(err)
	defer producer.Close()
	return producer.SendMessages(messages)
}

func numbered(topic string, count int) []*sarama.ProducerMessage {
	var messages []*sarama.ProducerMessage
	for i := range count {
		messages = append(messages, &sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder(fmt.Sprint(i))})
	}
	return messages
}

func readFrom(topic string, offset int64, count int) []*sarama.ConsumerMessage {
	consumer, err := sarama.NewConsumer(brokers, config())
	checks.Must(err)
	defer consumer.Close()
	partition, err := consumer.ConsumePartition(topic, 0, offset)
	checks.Must(err)
	defer partition.Close()
	var messages []*sarama.ConsumerMessage
	for len(messages) < count {
		select {
		case message := <-partition.Messages():
			messages = append(messages, message)
		case <-time.After(30 * time.Second):
			panic(fmt.Sprintf("%d of %d messages came", len(messages), count))
		}
	}
	return messages
}

func codecs() {
	codecs := []sarama.CompressionCodec{
		sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4, sarama.CompressionZSTD,
	}
	for _, codec := range codecs {
		for _, acks := range []sarama.RequiredAcks{sarama.NoResponse, sarama.WaitForLocal, sarama.WaitForAll} {
			for _, idempotent := range []bool{false, true} {
				if idempotent && acks != sarama.WaitForAll {
					continue
				}
				config := config()
				config.Producer.Compression = codec
				config.Producer.RequiredAcks = acks
				config.Producer.Idempotent = idempotent
				if idempotent {
					config.Net.MaxOpenRequests = 1
				}
				topic := create("codecs", 1, nil)
				checks.Must(produce(config, numbered(topic, 300)))
				for i, message := range readFrom(topic, sarama.OffsetOldest, 300) {
					checks.Equal(string(message.Value), fmt.Sprint(i), codec, acks)
				}
			}
		}
	}
}

func shapes() {
	topic := create("shapes", 1, nil)
	long := strings.Repeat("k", 40_000)
	checks.Must(produce(config(), []*sarama.ProducerMessage{
		{Topic: topic},
		{Topic: topic, Key: sarama.StringEncoder(long), Headers: []sarama.RecordHeader{{Key: []byte("a"), Value: []byte("1")}, {Key: []byte("a")}}},
		{Topic: topic, Key: sarama.StringEncoder("k"), Timestamp: time.UnixMilli(1000)},
	}))
	read := readFrom(topic, sarama.OffsetOldest, 3)
	checks.Equal(read[0].Key == nil && read[0].Value == nil, true)
	checks.Equal(string(read[1].Key), long)
	checks.Equal(len(read[1].Headers), 2)
	checks.Equal(read[2].Timestamp.UnixMilli(), 1000)
}

func sizes() {
	topic := create("sizes", 1, nil)
	config := config()
	config.Producer.MaxMessageBytes = 8_000_000
	for _, size := range []int{1, 100_000, 1_048_588 - 72} {
		checks.Must(produce(config, []*sarama.ProducerMessage{{Topic: topic, Value: sarama.ByteEncoder(make([]byte, size))}}))
	}
	err := produce(config, []*sarama.ProducerMessage{{Topic: topic, Value: sarama.ByteEncoder(make([]byte, 1_048_589))}})
	var failed sarama.ProducerErrors
	checks.Equal(errors.As(err, &failed) && errors.Is(failed[0].Err, sarama.ErrMessageSizeTooLarge), true, err)
	checks.Equal(len(readFrom(topic, sarama.OffsetOldest, 3)), 3)
}

type member struct {
	guard sync.Mutex
	seen  map[string]bool
	owned int
}

func (m *member) Setup(session sarama.ConsumerGroupSession) error {
	m.guard.Lock()
	defer m.guard.Unlock()
	m.owned = 0
	for _, partitions := range session.Claims() {
		m.owned += len(partitions)
	}
	return nil
}

func (m *member) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (m *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for message := range claim.Messages() {
		m.guard.Lock()
		m.seen[string(message.Value)] = true
		m.guard.Unlock()
		session.MarkMessage(message, "")
	}
	return nil
}

func (m *member) count() int {
	m.guard.Lock()
	defer m.guard.Unlock()
	return m.owned
}

func eager() {
	for _, strategy := range []sarama.BalanceStrategy{sarama.NewBalanceStrategyRange(), sarama.NewBalanceStrategySticky()} {
		topic, group := create("group", 6, nil), checks.Fresh("group")
		config := config()
		config.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{strategy}
		var members []*member
		var clients []sarama.ConsumerGroup
		for size := 1; size <= 3; size++ {
			client, err := sarama.NewConsumerGroup(brokers, group, config)
			checks.Must(err)
			member := &member{seen: map[string]bool{}}
			members, clients = append(members, member), append(clients, client)
			go func() {
				for client.Consume(context.Background(), []string{topic}, member) == nil {
				}
			}()
			checks.Eventually(func() bool {
				for _, member := range members {
					if member.count() != 6/size {
						return false
					}
				}
				return true
			})
		}
		messages := numbered(topic, 300)
		for i, message := range messages {
			message.Partition = int32(i % 6)
		}
		checks.Must(produce(config, messages))
		checks.Eventually(func() bool {
			total := 0
			for _, member := range members {
				member.guard.Lock()
				total += len(member.seen)
				member.guard.Unlock()
			}
			return total == 300
		})
		for _, client := range clients {
			checks.Must(client.Close())
		}
		admin := admin()
		offsets, err := admin.ListConsumerGroupOffsets(group, nil)
		checks.Must(err)
		total := int64(0)
		for _, block := range offsets.Blocks[topic] {
			total += block.Offset
		}
		checks.Equal(total, 300)
		checks.Must(admin.DeleteConsumerGroup(group))
		admin.Close()
	}
}

// old speaks as clients for older brokers do; the oldest protocol that Kafka 4 takes is that of 2.1.
func old() {
	for _, version := range []sarama.KafkaVersion{sarama.V2_1_0_0, sarama.V2_6_0_0, sarama.V3_6_0_0} {
		config := config()
		config.Version = version
		topic := create("old", 1, nil)
		checks.Must(produce(config, numbered(topic, 100)))
		client, err := sarama.NewConsumerGroup(brokers, topic, config)
		checks.Must(err)
		member := &member{seen: map[string]bool{}}
		go func() {
			for client.Consume(context.Background(), []string{topic}, member) == nil {
			}
		}()
		checks.Eventually(func() bool {
			member.guard.Lock()
			defer member.guard.Unlock()
			return len(member.seen) == 100
		})
		checks.Must(client.Close())
	}
}

func administration() {
	value := "3600000"
	topic := create("admin", 3, map[string]*string{"retention.ms": &value})
	admin := admin()
	defer admin.Close()
	described, err := admin.DescribeTopics([]string{topic})
	checks.Must(err)
	checks.Equal(len(described[0].Partitions), 3)
	entries, err := admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: topic})
	checks.Must(err)
	found := false
	for _, entry := range entries {
		found = found || entry.Name == "retention.ms" && entry.Value == value
	}
	checks.Equal(found, true)
	cluster, _, err := admin.DescribeCluster()
	checks.Must(err)
	checks.Equal(len(cluster), len(brokers))
	err = admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, false)
	checks.Equal(errors.Is(err, sarama.ErrTopicAlreadyExists), true, err)
	checks.Must(admin.DeleteTopic(topic))
	topics, err := admin.ListTopics()
	checks.Must(err)
	_, there := topics[topic]
	checks.Equal(there, false)
}

func main() {
	checks.Main([]checks.Check{
		{Name: "codecs", Run: codecs}, {Name: "shapes", Run: shapes}, {Name: "sizes", Run: sizes},
		{Name: "eager", Run: eager}, {Name: "old", Run: old}, {Name: "administration", Run: administration},
	})
}
