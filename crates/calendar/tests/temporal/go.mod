module example.com/temporal

go 1.26

require (
	go.temporal.io/api v1.63.5
	go.temporal.io/server v1.32.0
	google.golang.org/protobuf v1.36.11
)
