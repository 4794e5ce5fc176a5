// A hello world of the Go SDK: an activity, a timer, a signal and a query.
// Exits with 0 if all of it worked. EVERSPAN_ADDRESS names the server.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

const patience = 30 * time.Second

// Greet is the activity.
func Greet(_ context.Context, name string) (string, error) {
	return "Hello, " + name + "!", nil
}

// Hello greets, rests, waits for a signal, and answers a query about where it is.
func Hello(ctx workflow.Context, name string) (string, error) {
	state := "started"
	if err := workflow.SetQueryHandler(ctx, "state", func() (string, error) { return state, nil }); err != nil {
		return "", err
	}
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: patience})
	var greeting string
	if err := workflow.ExecuteActivity(ctx, Greet, name).Get(ctx, &greeting); err != nil {
		return "", err
	}
	state = "greeted"
	if err := workflow.Sleep(ctx, 10*time.Millisecond); err != nil {
		return "", err
	}
	state = "waiting"
	var word string
	workflow.GetSignalChannel(ctx, "go").Receive(ctx, &word)
	state = "done"
	return greeting + " " + word, nil
}

func run() error {
	address := os.Getenv("EVERSPAN_ADDRESS")
	if address == "" {
		address = client.DefaultHostPort
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := client.DialContext(ctx, client.Options{HostPort: address})
	if err != nil {
		return err
	}
	defer c.Close()

	id := fmt.Sprintf("hello-go-%d", time.Now().UnixNano())
	w := worker.New(c, id, worker.Options{})
	w.RegisterWorkflow(Hello)
	w.RegisterActivity(Greet)
	if err := w.Start(); err != nil {
		return err
	}
	defer w.Stop()

	started, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: id, TaskQueue: id}, Hello, "Go")
	if err != nil {
		return err
	}
	for state := ""; state != "waiting"; {
		answer, err := c.QueryWorkflow(ctx, id, "", "state")
		if err != nil {
			return err
		}
		if err := answer.Get(&state); err != nil {
			return err
		}
	}
	if err := c.SignalWorkflow(ctx, id, "", "go", "Goodbye."); err != nil {
		return err
	}
	var result string
	if err := started.Get(ctx, &result); err != nil {
		return err
	}
	if want := "Hello, Go! Goodbye."; result != want {
		return fmt.Errorf("got %q, want %q", result, want)
	}
	fmt.Println(result)
	return nil
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}
