//! Every RPC of both services: built ones go to the method of the same name, the others say so.
//!
//! Building an RPC: move its line from `not_yet` to `works` and write the method.

use crate::grpc::serve::services;

services! {
    workflowservice::workflow_service_server::WorkflowService, everspan_proto::workflowservice, "temporal.api.workflowservice.v1.WorkflowService" {
        works {
            register_namespace: RegisterNamespace, RegisterNamespaceRequest => RegisterNamespaceResponse;
            describe_namespace: DescribeNamespace, DescribeNamespaceRequest => DescribeNamespaceResponse;
            list_namespaces: ListNamespaces, ListNamespacesRequest => ListNamespacesResponse;
            update_namespace: UpdateNamespace, UpdateNamespaceRequest => UpdateNamespaceResponse;
            deprecate_namespace: DeprecateNamespace, DeprecateNamespaceRequest => DeprecateNamespaceResponse;
            start_workflow_execution: StartWorkflowExecution, StartWorkflowExecutionRequest => StartWorkflowExecutionResponse;
            get_workflow_execution_history: GetWorkflowExecutionHistory, GetWorkflowExecutionHistoryRequest => GetWorkflowExecutionHistoryResponse;
            get_workflow_execution_history_reverse: GetWorkflowExecutionHistoryReverse, GetWorkflowExecutionHistoryReverseRequest => GetWorkflowExecutionHistoryReverseResponse;
            poll_workflow_task_queue: PollWorkflowTaskQueue, PollWorkflowTaskQueueRequest => PollWorkflowTaskQueueResponse;
            respond_workflow_task_completed: RespondWorkflowTaskCompleted, RespondWorkflowTaskCompletedRequest => RespondWorkflowTaskCompletedResponse;
            respond_workflow_task_failed: RespondWorkflowTaskFailed, RespondWorkflowTaskFailedRequest => RespondWorkflowTaskFailedResponse;
            poll_activity_task_queue: PollActivityTaskQueue, PollActivityTaskQueueRequest => PollActivityTaskQueueResponse;
            record_activity_task_heartbeat: RecordActivityTaskHeartbeat, RecordActivityTaskHeartbeatRequest => RecordActivityTaskHeartbeatResponse;
            record_activity_task_heartbeat_by_id: RecordActivityTaskHeartbeatById, RecordActivityTaskHeartbeatByIdRequest => RecordActivityTaskHeartbeatByIdResponse;
            respond_activity_task_completed: RespondActivityTaskCompleted, RespondActivityTaskCompletedRequest => RespondActivityTaskCompletedResponse;
            respond_activity_task_completed_by_id: RespondActivityTaskCompletedById, RespondActivityTaskCompletedByIdRequest => RespondActivityTaskCompletedByIdResponse;
            respond_activity_task_failed: RespondActivityTaskFailed, RespondActivityTaskFailedRequest => RespondActivityTaskFailedResponse;
            respond_activity_task_failed_by_id: RespondActivityTaskFailedById, RespondActivityTaskFailedByIdRequest => RespondActivityTaskFailedByIdResponse;
            respond_activity_task_canceled: RespondActivityTaskCanceled, RespondActivityTaskCanceledRequest => RespondActivityTaskCanceledResponse;
            respond_activity_task_canceled_by_id: RespondActivityTaskCanceledById, RespondActivityTaskCanceledByIdRequest => RespondActivityTaskCanceledByIdResponse;
            request_cancel_workflow_execution: RequestCancelWorkflowExecution, RequestCancelWorkflowExecutionRequest => RequestCancelWorkflowExecutionResponse;
            signal_workflow_execution: SignalWorkflowExecution, SignalWorkflowExecutionRequest => SignalWorkflowExecutionResponse;
            signal_with_start_workflow_execution: SignalWithStartWorkflowExecution, SignalWithStartWorkflowExecutionRequest => SignalWithStartWorkflowExecutionResponse;
            terminate_workflow_execution: TerminateWorkflowExecution, TerminateWorkflowExecutionRequest => TerminateWorkflowExecutionResponse;
            reset_workflow_execution: ResetWorkflowExecution, ResetWorkflowExecutionRequest => ResetWorkflowExecutionResponse;
            delete_workflow_execution: DeleteWorkflowExecution, DeleteWorkflowExecutionRequest => DeleteWorkflowExecutionResponse;
            list_open_workflow_executions: ListOpenWorkflowExecutions, ListOpenWorkflowExecutionsRequest => ListOpenWorkflowExecutionsResponse;
            list_closed_workflow_executions: ListClosedWorkflowExecutions, ListClosedWorkflowExecutionsRequest => ListClosedWorkflowExecutionsResponse;
            list_workflow_executions: ListWorkflowExecutions, ListWorkflowExecutionsRequest => ListWorkflowExecutionsResponse;
            scan_workflow_executions: ScanWorkflowExecutions, ScanWorkflowExecutionsRequest => ScanWorkflowExecutionsResponse;
            count_workflow_executions: CountWorkflowExecutions, CountWorkflowExecutionsRequest => CountWorkflowExecutionsResponse;
            get_search_attributes: GetSearchAttributes, GetSearchAttributesRequest => GetSearchAttributesResponse;
            respond_query_task_completed: RespondQueryTaskCompleted, RespondQueryTaskCompletedRequest => RespondQueryTaskCompletedResponse;
            reset_sticky_task_queue: ResetStickyTaskQueue, ResetStickyTaskQueueRequest => ResetStickyTaskQueueResponse;
            shutdown_worker: ShutdownWorker, ShutdownWorkerRequest => ShutdownWorkerResponse;
            execute_multi_operation: ExecuteMultiOperation, ExecuteMultiOperationRequest => ExecuteMultiOperationResponse;
            update_workflow_execution: UpdateWorkflowExecution, UpdateWorkflowExecutionRequest => UpdateWorkflowExecutionResponse;
            poll_workflow_execution_update: PollWorkflowExecutionUpdate, PollWorkflowExecutionUpdateRequest => PollWorkflowExecutionUpdateResponse;
            query_workflow: QueryWorkflow, QueryWorkflowRequest => QueryWorkflowResponse;
            describe_workflow_execution: DescribeWorkflowExecution, DescribeWorkflowExecutionRequest => DescribeWorkflowExecutionResponse;
            describe_task_queue: DescribeTaskQueue, DescribeTaskQueueRequest => DescribeTaskQueueResponse;
            get_cluster_info: GetClusterInfo, GetClusterInfoRequest => GetClusterInfoResponse;
            update_activity_options: UpdateActivityOptions, UpdateActivityOptionsRequest => UpdateActivityOptionsResponse;
            pause_activity: PauseActivity, PauseActivityRequest => PauseActivityResponse;
            unpause_activity: UnpauseActivity, UnpauseActivityRequest => UnpauseActivityResponse;
            reset_activity: ResetActivity, ResetActivityRequest => ResetActivityResponse;
            update_workflow_execution_options: UpdateWorkflowExecutionOptions, UpdateWorkflowExecutionOptionsRequest => UpdateWorkflowExecutionOptionsResponse;
            pause_workflow_execution: PauseWorkflowExecution, PauseWorkflowExecutionRequest => PauseWorkflowExecutionResponse;
            unpause_workflow_execution: UnpauseWorkflowExecution, UnpauseWorkflowExecutionRequest => UnpauseWorkflowExecutionResponse;
            get_system_info: GetSystemInfo, GetSystemInfoRequest => GetSystemInfoResponse;
            record_worker_heartbeat: RecordWorkerHeartbeat, RecordWorkerHeartbeatRequest => RecordWorkerHeartbeatResponse;
            list_workers: ListWorkers, ListWorkersRequest => ListWorkersResponse;
            count_workers: CountWorkers, CountWorkersRequest => CountWorkersResponse;
            describe_worker: DescribeWorker, DescribeWorkerRequest => DescribeWorkerResponse;
            update_task_queue_config: UpdateTaskQueueConfig, UpdateTaskQueueConfigRequest => UpdateTaskQueueConfigResponse;
            list_task_queue_partitions: ListTaskQueuePartitions, ListTaskQueuePartitionsRequest => ListTaskQueuePartitionsResponse;
            pause_activity_execution: PauseActivityExecution, PauseActivityExecutionRequest => PauseActivityExecutionResponse;
            reset_activity_execution: ResetActivityExecution, ResetActivityExecutionRequest => ResetActivityExecutionResponse;
            unpause_activity_execution: UnpauseActivityExecution, UnpauseActivityExecutionRequest => UnpauseActivityExecutionResponse;
            update_activity_execution_options: UpdateActivityExecutionOptions, UpdateActivityExecutionOptionsRequest => UpdateActivityExecutionOptionsResponse;
        }
        not_yet {
            list_archived_workflow_executions: ListArchivedWorkflowExecutions, ListArchivedWorkflowExecutionsRequest => ListArchivedWorkflowExecutionsResponse;
            create_schedule: CreateSchedule, CreateScheduleRequest => CreateScheduleResponse;
            describe_schedule: DescribeSchedule, DescribeScheduleRequest => DescribeScheduleResponse;
            update_schedule: UpdateSchedule, UpdateScheduleRequest => UpdateScheduleResponse;
            patch_schedule: PatchSchedule, PatchScheduleRequest => PatchScheduleResponse;
            list_schedule_matching_times: ListScheduleMatchingTimes, ListScheduleMatchingTimesRequest => ListScheduleMatchingTimesResponse;
            delete_schedule: DeleteSchedule, DeleteScheduleRequest => DeleteScheduleResponse;
            list_schedules: ListSchedules, ListSchedulesRequest => ListSchedulesResponse;
            count_schedules: CountSchedules, CountSchedulesRequest => CountSchedulesResponse;
            update_worker_build_id_compatibility: UpdateWorkerBuildIdCompatibility, UpdateWorkerBuildIdCompatibilityRequest => UpdateWorkerBuildIdCompatibilityResponse;
            get_worker_build_id_compatibility: GetWorkerBuildIdCompatibility, GetWorkerBuildIdCompatibilityRequest => GetWorkerBuildIdCompatibilityResponse;
            update_worker_versioning_rules: UpdateWorkerVersioningRules, UpdateWorkerVersioningRulesRequest => UpdateWorkerVersioningRulesResponse;
            get_worker_versioning_rules: GetWorkerVersioningRules, GetWorkerVersioningRulesRequest => GetWorkerVersioningRulesResponse;
            get_worker_task_reachability: GetWorkerTaskReachability, GetWorkerTaskReachabilityRequest => GetWorkerTaskReachabilityResponse;
            describe_deployment: DescribeDeployment, DescribeDeploymentRequest => DescribeDeploymentResponse;
            describe_worker_deployment_version: DescribeWorkerDeploymentVersion, DescribeWorkerDeploymentVersionRequest => DescribeWorkerDeploymentVersionResponse;
            list_deployments: ListDeployments, ListDeploymentsRequest => ListDeploymentsResponse;
            get_deployment_reachability: GetDeploymentReachability, GetDeploymentReachabilityRequest => GetDeploymentReachabilityResponse;
            get_current_deployment: GetCurrentDeployment, GetCurrentDeploymentRequest => GetCurrentDeploymentResponse;
            set_current_deployment: SetCurrentDeployment, SetCurrentDeploymentRequest => SetCurrentDeploymentResponse;
            set_worker_deployment_current_version: SetWorkerDeploymentCurrentVersion, SetWorkerDeploymentCurrentVersionRequest => SetWorkerDeploymentCurrentVersionResponse;
            describe_worker_deployment: DescribeWorkerDeployment, DescribeWorkerDeploymentRequest => DescribeWorkerDeploymentResponse;
            delete_worker_deployment: DeleteWorkerDeployment, DeleteWorkerDeploymentRequest => DeleteWorkerDeploymentResponse;
            delete_worker_deployment_version: DeleteWorkerDeploymentVersion, DeleteWorkerDeploymentVersionRequest => DeleteWorkerDeploymentVersionResponse;
            set_worker_deployment_ramping_version: SetWorkerDeploymentRampingVersion, SetWorkerDeploymentRampingVersionRequest => SetWorkerDeploymentRampingVersionResponse;
            list_worker_deployments: ListWorkerDeployments, ListWorkerDeploymentsRequest => ListWorkerDeploymentsResponse;
            create_worker_deployment: CreateWorkerDeployment, CreateWorkerDeploymentRequest => CreateWorkerDeploymentResponse;
            create_worker_deployment_version: CreateWorkerDeploymentVersion, CreateWorkerDeploymentVersionRequest => CreateWorkerDeploymentVersionResponse;
            update_worker_deployment_version_compute_config: UpdateWorkerDeploymentVersionComputeConfig, UpdateWorkerDeploymentVersionComputeConfigRequest => UpdateWorkerDeploymentVersionComputeConfigResponse;
            validate_worker_deployment_version_compute_config: ValidateWorkerDeploymentVersionComputeConfig, ValidateWorkerDeploymentVersionComputeConfigRequest => ValidateWorkerDeploymentVersionComputeConfigResponse;
            update_worker_deployment_version_metadata: UpdateWorkerDeploymentVersionMetadata, UpdateWorkerDeploymentVersionMetadataRequest => UpdateWorkerDeploymentVersionMetadataResponse;
            set_worker_deployment_manager: SetWorkerDeploymentManager, SetWorkerDeploymentManagerRequest => SetWorkerDeploymentManagerResponse;
            start_batch_operation: StartBatchOperation, StartBatchOperationRequest => StartBatchOperationResponse;
            stop_batch_operation: StopBatchOperation, StopBatchOperationRequest => StopBatchOperationResponse;
            describe_batch_operation: DescribeBatchOperation, DescribeBatchOperationRequest => DescribeBatchOperationResponse;
            list_batch_operations: ListBatchOperations, ListBatchOperationsRequest => ListBatchOperationsResponse;
            poll_nexus_task_queue: PollNexusTaskQueue, PollNexusTaskQueueRequest => PollNexusTaskQueueResponse;
            respond_nexus_task_completed: RespondNexusTaskCompleted, RespondNexusTaskCompletedRequest => RespondNexusTaskCompletedResponse;
            respond_nexus_task_failed: RespondNexusTaskFailed, RespondNexusTaskFailedRequest => RespondNexusTaskFailedResponse;
            create_workflow_rule: CreateWorkflowRule, CreateWorkflowRuleRequest => CreateWorkflowRuleResponse;
            describe_workflow_rule: DescribeWorkflowRule, DescribeWorkflowRuleRequest => DescribeWorkflowRuleResponse;
            delete_workflow_rule: DeleteWorkflowRule, DeleteWorkflowRuleRequest => DeleteWorkflowRuleResponse;
            list_workflow_rules: ListWorkflowRules, ListWorkflowRulesRequest => ListWorkflowRulesResponse;
            trigger_workflow_rule: TriggerWorkflowRule, TriggerWorkflowRuleRequest => TriggerWorkflowRuleResponse;
            fetch_worker_config: FetchWorkerConfig, FetchWorkerConfigRequest => FetchWorkerConfigResponse;
            update_worker_config: UpdateWorkerConfig, UpdateWorkerConfigRequest => UpdateWorkerConfigResponse;
            start_activity_execution: StartActivityExecution, StartActivityExecutionRequest => StartActivityExecutionResponse;
            start_nexus_operation_execution: StartNexusOperationExecution, StartNexusOperationExecutionRequest => StartNexusOperationExecutionResponse;
            describe_activity_execution: DescribeActivityExecution, DescribeActivityExecutionRequest => DescribeActivityExecutionResponse;
            describe_nexus_operation_execution: DescribeNexusOperationExecution, DescribeNexusOperationExecutionRequest => DescribeNexusOperationExecutionResponse;
            poll_activity_execution: PollActivityExecution, PollActivityExecutionRequest => PollActivityExecutionResponse;
            poll_nexus_operation_execution: PollNexusOperationExecution, PollNexusOperationExecutionRequest => PollNexusOperationExecutionResponse;
            list_activity_executions: ListActivityExecutions, ListActivityExecutionsRequest => ListActivityExecutionsResponse;
            list_nexus_operation_executions: ListNexusOperationExecutions, ListNexusOperationExecutionsRequest => ListNexusOperationExecutionsResponse;
            count_activity_executions: CountActivityExecutions, CountActivityExecutionsRequest => CountActivityExecutionsResponse;
            count_nexus_operation_executions: CountNexusOperationExecutions, CountNexusOperationExecutionsRequest => CountNexusOperationExecutionsResponse;
            request_cancel_activity_execution: RequestCancelActivityExecution, RequestCancelActivityExecutionRequest => RequestCancelActivityExecutionResponse;
            request_cancel_nexus_operation_execution: RequestCancelNexusOperationExecution, RequestCancelNexusOperationExecutionRequest => RequestCancelNexusOperationExecutionResponse;
            terminate_activity_execution: TerminateActivityExecution, TerminateActivityExecutionRequest => TerminateActivityExecutionResponse;
            delete_activity_execution: DeleteActivityExecution, DeleteActivityExecutionRequest => DeleteActivityExecutionResponse;
            terminate_nexus_operation_execution: TerminateNexusOperationExecution, TerminateNexusOperationExecutionRequest => TerminateNexusOperationExecutionResponse;
            delete_nexus_operation_execution: DeleteNexusOperationExecution, DeleteNexusOperationExecutionRequest => DeleteNexusOperationExecutionResponse;
            poll_workflow_execution_time_skipping: PollWorkflowExecutionTimeSkipping, PollWorkflowExecutionTimeSkippingRequest => PollWorkflowExecutionTimeSkippingResponse;
        }
    }
    operatorservice::operator_service_server::OperatorService, everspan_proto::operatorservice, "temporal.api.operatorservice.v1.OperatorService" {
        works {
            add_search_attributes: AddSearchAttributes, AddSearchAttributesRequest => AddSearchAttributesResponse;
            remove_search_attributes: RemoveSearchAttributes, RemoveSearchAttributesRequest => RemoveSearchAttributesResponse;
            list_search_attributes: ListSearchAttributes, ListSearchAttributesRequest => ListSearchAttributesResponse;
        }
        not_yet {
            delete_namespace: DeleteNamespace, DeleteNamespaceRequest => DeleteNamespaceResponse;
            add_or_update_remote_cluster: AddOrUpdateRemoteCluster, AddOrUpdateRemoteClusterRequest => AddOrUpdateRemoteClusterResponse;
            remove_remote_cluster: RemoveRemoteCluster, RemoveRemoteClusterRequest => RemoveRemoteClusterResponse;
            list_clusters: ListClusters, ListClustersRequest => ListClustersResponse;
            get_nexus_endpoint: GetNexusEndpoint, GetNexusEndpointRequest => GetNexusEndpointResponse;
            create_nexus_endpoint: CreateNexusEndpoint, CreateNexusEndpointRequest => CreateNexusEndpointResponse;
            update_nexus_endpoint: UpdateNexusEndpoint, UpdateNexusEndpointRequest => UpdateNexusEndpointResponse;
            delete_nexus_endpoint: DeleteNexusEndpoint, DeleteNexusEndpointRequest => DeleteNexusEndpointResponse;
            list_nexus_endpoints: ListNexusEndpoints, ListNexusEndpointsRequest => ListNexusEndpointsResponse;
        }
    }
}
